"""One server process, from its settings to its end: start everything in order, wait for a signal, stop in order."""

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from podium.api.v1.server_service_pb2 import GetServerInfoResponse
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.blocking import on_loop
from podium.jobs.settings import Settings
from podium.jobs.store import Archive, JobStore
from podium.jobs.store.redis import RedisAudit, RedisStore, RedisTokens, connect
from podium.jobs.store.redis_loop import connect_on_loop
from podium.jobs.tracing import Tracer, tracer
from podium.server.access import AccessSettings, Door, Keyring, Limits
from podium.server.admission import Admission
from podium.server.assembly import MAX_MESSAGE_BYTES, Assembled, Guard
from podium.server.audit import AuditWriter
from podium.server.dispatcher import (
    Archiver,
    Deleter,
    Dispatcher,
    Leader,
    Outlook,
    Reconciler,
    RqDelivery,
    Sharing,
    Snapshots,
    Upkeep,
)
from podium.server.interceptors import Metering, Observer, Tracing
from podium.server.observing import Figures, Listener, Lookout, ServerState, pages
from podium.server.servicers import (
    AuditServicer,
    CheckpointServicer,
    ExternalScalerServicer,
    JobServicer,
    LogServicer,
    MetricServicer,
    NodeServicer,
    ServerServicer,
    TokenServicer,
)
from podium.server.services.audit import Trail
from podium.server.services.checkpoints import Checkpoints
from podium.server.services.datasets import Datasets
from podium.server.services.demand import PoolDemand
from podium.server.services.jobs import LARGEST_PAGE, MOST_WATCHED, Jobs
from podium.server.services.logs import Logs
from podium.server.services.metrics import MOST_POINTS, Metrics
from podium.server.services.tokens import Tokens
from podium.server.siblings import publish
from podium.server.tls import ServerTls, is_local
from podium.server.watch import Hub, Watches
from podium.server.webhooks import Webhooks, WebhookSettings

_LOG = logging.getLogger(__name__)
#: Calls that read the ledger or a file at the same time; more wait.
_THREADS = 32
#: Connections to Redis of everything that goes on behind the calls: one listens to the ledger's bell, the others are
#: shared by the leader, watches, the tokens, the audit trail and the lookout.
_BEHIND = 3
#: Events of a job; a watch that asks for older ones gets OUT_OF_RANGE.
EVENTS_KEPT = 20_000
#: Seconds after which health checks are told of a change.
_HEALTH_EVERY = 0.5
_OPEN = (
    "NO TLS on %s: whoever is on the way reads and changes every call. Set PODIUM_TLS_CERT and PODIUM_TLS_KEY, or "
    "listen on 127.0.0.1"
)
_TOKENLESS = (
    "NO TOKENS on %s: whoever reaches it may do everything. Make an admin with `podium token create`, or set "
    "PODIUM_ADMIN_TOKEN_FILE, or listen on 127.0.0.1"
)
#: Seconds that a thread may compute while others want the interpreter; Python's own are 5 ms.
_SWITCH = 0.0005
#: Seconds in which the audit trail's last events are written; without Redis they are lost.
_AUDIT_WITHIN = 5.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says."""

    listen: str
    with_reflection: bool = True
    port_file: Path | None = None
    keepalive: float = 15.0
    grace: float = 10.0
    """Seconds that calls in hand get to end."""
    metrics_listen: str | None = None
    """HOST:PORT of metrics and health over HTTP; None: nowhere."""
    sibling: bool = False
    """Whether other processes share the port; then the end of standard input is the end of this one, too."""
    sharing: Sharing = field(default_factory=Sharing)
    access: AccessSettings = field(default_factory=AccessSettings)
    tls: ServerTls | None = None
    """None: callers come without."""
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)


class App:
    """The server's parts, started and stopped in order."""

    def __init__(self, settings: Settings, options: Options) -> None:
        artifacts, access = ArtifactStore(settings.artifacts), options.access
        archive, self._line = Archive(artifacts), connect_on_loop(settings)
        client, behind = connect(settings), connect(settings, connections=_BEHIND)
        self._clients = (client, behind)
        # Of calls in a thread, of those on the event loop, and of what goes on behind them.
        calls, desk, store = (
            RedisStore(line, leases=settings.leases, events_kept=EVENTS_KEPT, archive=archive)
            for line in (client, self._line, behind)
        )
        self._keyring = Keyring(RedisTokens(behind), admin_digest=access.admin_digest)
        self._audit = AuditWriter(RedisAudit(behind, kept=access.audit_kept))
        limits = Limits(calls_per_second=access.calls_per_second, streams=access.streams_per_caller)
        self._options = options
        snapshots = Snapshots(store, settings.leases, options.sharing)
        self._leader = Leader(
            store,
            Dispatcher(store, RqDelivery(behind), snapshots),
            Reconciler(store, snapshots, settings.leases),
            owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            upkeep=Upkeep(
                {"deleting bytes": Deleter(store, artifacts).delete, "archiving": Archiver(store, artifacts).archive}
            ),
            webhooks=Webhooks(store, options.webhooks),
        )
        self._hub = Hub(store, rang=self._leader.wake)
        outlook = Outlook(snapshots)
        watches = Watches(
            store, self._hub, lambda job_id: outlook.explained([store.get(job_id)])[0], keepalive=options.keepalive
        )
        observed = options.metrics_listen is not None
        self._tracer = tracer("podium-server")
        self._lookout = Lookout(store, counts=observed)
        self._listener: Listener | None = None
        self._told: ServerState | None = None
        self._assembled = Assembled(
            {
                **_servicers(calls, desk, outlook, watches, settings),
                "LogService": LogServicer(Logs(calls, self._hub, keepalive=options.keepalive)),
                "ServerService": ServerServicer(
                    _info(settings, access), Datasets(settings.data_roots), lambda: self._keyring.asks
                ),
                "TokenService": TokenServicer(Tokens(RedisTokens(client)), self._keyring),
                "AuditService": AuditServicer(Trail(RedisAudit(client, kept=access.audit_kept))),
            },
            with_reflection=options.with_reflection,
            observers=_observers(observed, self._tracer),
            shares_port=options.sibling,
            guard=Guard(door=Door(self._keyring, limits, calls), audit=self._audit),
        )

    async def start(self) -> str:
        """Serves, and returns the bound address.

        Raises:
            OSError: the address cannot be bound.
        """
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="podium-call")
        )
        # First, so that a server which waits for anything else can say so.
        self._listen_for_operators()
        self._lookout.start()
        await self._keyring.start()
        address = self._bind(self._options.listen)
        self._hub.start()
        await self._assembled.server.start()
        self._leader.start()
        # So that whoever asks as soon as it serves is told that it does, where the ledger is there.
        await asyncio.to_thread(self._lookout.wait, 1.0)
        self._tell_health()
        self._health = asyncio.create_task(self._keep_telling_health())
        return address

    def _listen_for_operators(self) -> None:
        if self._options.metrics_listen is None:
            return
        figures = Figures(self._lookout, lambda: self._leader.leads)
        told = pages(self._lookout, figures, asyncio.get_running_loop())
        self._listener = Listener(self._options.metrics_listen, told)
        self._listener.start()
        _LOG.info("metrics and health on http://%s", self._listener.address)

    def _tell_health(self) -> None:
        """Has the health service say how the server is."""
        if (state := self._lookout.state) is not self._told:
            self._assembled.set_health(state)
            _LOG.info("health: %s", state.value)
            self._told = state

    async def _keep_telling_health(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_EVERY)
            self._tell_health()

    def _bind(self, listen: str) -> str:
        server, tls = self._assembled.server, self._options.tls
        if tls is None and not is_local(listen):
            _LOG.warning(_OPEN, listen)
        if self._keyring.open and not is_local(listen):
            _LOG.warning(_TOKENLESS, listen)
        try:
            port = server.add_secure_port(listen, tls.credentials()) if tls else server.add_insecure_port(listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen}; choose a free port with --listen") from error
        return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Tells health checks first, then watchers, then waits for calls in hand."""
        # All of the former one's threads may wait for a disk that hangs.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="podium-stop"))
        self._lookout.drain()
        self._health.cancel()
        self._tell_health()
        self._hub.drain()
        # Together: while Redis hangs, the leader's last step takes long.
        await asyncio.gather(asyncio.to_thread(self._leader.stop), self._assembled.server.stop(self._options.grace))
        await self._hub.stop()
        await asyncio.to_thread(self._lookout.stop)
        if self._listener is not None:
            await asyncio.to_thread(self._listener.stop)
        # Last, since the calls that just ended are in it.
        await self._audit.stop(_AUDIT_WITHIN)
        await on_loop(self._line.close)
        await self._keyring.stop()
        for client in self._clients:
            await asyncio.to_thread(client.close)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)


async def serve(settings: Settings, options: Options) -> None:
    """Runs a server until SIGTERM or SIGINT.

    Raises:
        OSError: the address cannot be bound.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if options.sibling:
        _end_with_the_parent(stopping)
    app = App(settings, options)
    address = await app.start()
    _let_calls_go_first()
    if options.port_file is not None:
        publish(options.port_file, address)
    _LOG.info("serving on %s", address)
    await stopping.wait()
    _LOG.info("stopping")
    await app.stop()
    _LOG.info("stopped")


def _let_calls_go_first() -> None:
    """Has what else this process does hold up its calls less."""
    # The collector stops them for as long as it looks at what is there for good.
    gc.collect()
    gc.freeze()
    # Of a thread that computes, such as the leader's, the event loop gets the interpreter back only after so long, and
    # it gives it away several times a call.
    sys.setswitchinterval(_SWITCH)


def _end_with_the_parent(stopping: asyncio.Event) -> None:
    loop, pipe = asyncio.get_running_loop(), sys.stdin.fileno()

    def ended() -> None:
        # Nothing ever comes through the pipe but its end.
        loop.remove_reader(pipe)
        stopping.set()

    loop.add_reader(pipe, ended)


def _observers(metered: bool, tracer: Tracer | None) -> list[Observer]:
    return [*([Metering()] if metered else []), *([Tracing(tracer)] if tracer else [])]


def _servicers(
    store: JobStore, desk: JobStore, outlook: Outlook, watches: Watches, settings: Settings
) -> dict[str, object]:
    jobs, at_the_desk = (
        Jobs(ledger, Admission(roots=settings.data_roots, uri_prefixes=settings.uri_prefixes, store=ledger), outlook)
        for ledger in (store, desk)
    )
    return {
        "JobService": JobServicer(jobs, at_the_desk, watches),
        "MetricService": MetricServicer(Metrics(store)),
        "CheckpointService": CheckpointServicer(Checkpoints(store, ArtifactStore(settings.artifacts))),
        "NodeService": NodeServicer(store),
        "ExternalScaler": ExternalScalerServicer(PoolDemand(store)),
    }


def _info(settings: Settings, access: AccessSettings) -> GetServerInfoResponse:
    return GetServerInfoResponse(
        version=version("podium"),
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_page_size=LARGEST_PAGE,
        max_metric_points=MOST_POINTS,
        events_kept=EVENTS_KEPT,
        allowed_roots=settings.data_roots,
        allowed_uri_prefixes=settings.uri_prefixes,
        max_calls_per_second=access.calls_per_second,
        max_streams=access.streams_per_caller,
        max_watched_jobs=MOST_WATCHED,
    )
