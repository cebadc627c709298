"""The standard health service, for load balancers and for `podium.server.probe`.

Ours, as grpcio-health-checking's writes to a watcher while it holds what the next change waits for: one caller who does
not read, and health asks nobody for a token, kept the server from telling anybody of a change, and from stopping.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from podium.jobs.errors import ResourceExhaustedError
from podium.server.access import counted, host_of
from podium.server.observing import ServerState
from podium.server.probe import STATE_KEY

#: Watches of one address, and of all: they ask for no token, and take of the calls that a server has for all.
MOST_OF_ONE, MOST_OF_ALL = 10, 100
_Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """Tells the same of every service, as all of them need the ledger. Lives on the event loop.

    Args:
        names: of the services; the empty one, which stands for the whole server, is told beside them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(("", *names))
        self._state = ServerState.STARTING
        self._changed = asyncio.Event()
        self._watching: Counter[str] = Counter()

    def set(self, state: ServerState) -> None:
        """How the server is from now on. Waits for nobody."""
        self._state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> _Status:
        """See grpc.health.v1; what is behind a NOT_SERVING stands in the trailing metadata."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        context.set_trailing_metadata(((STATE_KEY, self._state.value),))
        return self._response(request.service)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """See grpc.health.v1.

        Raises:
            ResourceExhaustedError: too many watch from there, or in all (reason TOO_MANY_STREAMS).
        """
        told = None
        with self._place(host_of(context.peer())):
            while True:
                changed = self._changed
                if (response := self._response(request.service)) != told:
                    await context.write(response)
                    told = response
                await changed.wait()

    @contextmanager
    def _place(self, host: str) -> Iterator[None]:
        if self._watching[host] >= MOST_OF_ONE or self._watching.total() >= MOST_OF_ALL:
            raise ResourceExhaustedError(
                f"health is watched {MOST_OF_ONE} times from one address at most, and {MOST_OF_ALL} times in all; "
                "end a watch, or ask with Check",
                reason="TOO_MANY_STREAMS",
                retry_after=1.0,
            )
        with counted(self._watching, host):
            yield

    def _response(self, service: str) -> _Status:
        if service not in self._names:
            return _Status(status=_Status.SERVICE_UNKNOWN)
        return _Status(status=_Status.SERVING if self._state is ServerState.SERVING else _Status.NOT_SERVING)
