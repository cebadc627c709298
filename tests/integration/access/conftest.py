"""Whole servers in this process, on a ledger of their own: real gRPC, real Redis, and no time lost on starting."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from podium.api.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    checkpoint_service_pb2_grpc,
    job_service_pb2_grpc,
    log_service_pb2_grpc,
    metric_service_pb2_grpc,
    node_service_pb2_grpc,
    server_service_pb2_grpc,
    token_pb2,
    token_service_pb2,
    token_service_pb2_grpc,
)
from podium.jobs.settings import Settings
from podium.jobs.store import Leases
from podium.jobs.store.redis import connect
from podium.server.access import AccessSettings
from podium.server.app import App, Options

#: The secret of the operator's file, where a server has one.
OPERATOR = "0123456789abcdef" * 3


@dataclass
class Refusal:
    """What a refused caller hears."""

    code: str
    sentence: str
    reason: str
    metadata: dict[str, str]
    retry_after: float


class Caller:
    """Calls one server, with a secret or without."""

    def __init__(self, channel: grpc.aio.Channel, secret: str = "", scheme: str = "Bearer") -> None:
        self.channel = channel
        self.metadata = (("authorization", f"{scheme} {secret}"),) if secret else ()
        self.jobs = job_service_pb2_grpc.JobServiceStub(channel)
        self.tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        self.nodes = node_service_pb2_grpc.NodeServiceStub(channel)
        self.checkpoints = checkpoint_service_pb2_grpc.CheckpointServiceStub(channel)
        self.catalogue = server_service_pb2_grpc.ServerServiceStub(channel)
        self.metrics = metric_service_pb2_grpc.MetricServiceStub(channel)
        self.logs = log_service_pb2_grpc.LogServiceStub(channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(channel)

    def with_secret(self, secret: str, scheme: str = "Bearer") -> "Caller":
        return Caller(self.channel, secret, scheme)

    async def ask(self, method: Any, request: Any) -> Any:
        """The answer; of a stream, all of its messages."""
        call = method(request, metadata=self.metadata, timeout=20)
        return [message async for message in call] if hasattr(call, "__aiter__") else await call

    def open(self, method: Any, request: Any) -> Any:
        """A stream."""
        return method(request, metadata=self.metadata, timeout=60)

    async def refused(self, method: Any, request: Any) -> Refusal:
        """What the caller hears instead of an answer."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(method, request)
        return refusal(caught.value)

    async def make(self, name: str = "ci", project: str = "*", role: Any = 3, **more: Any) -> tuple[Any, str]:
        """A new token and its secret."""
        request = token_service_pb2.CreateTokenRequest(display_name=name, project=project, role=role, **more)
        answer = await self.ask(self.tokens.CreateToken, request)
        return answer.token, answer.secret

    async def trail(self, **wanted: Any) -> list[Any]:
        """The audit trail, newest first."""
        request = audit_service_pb2.ListAuditEventsRequest(**wanted)
        return list((await self.ask(self.audit.ListAuditEvents, request)).events)


def refusal(error: Any) -> Refusal:
    """What a status says."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in _details(error):
        detail.Unpack(info)
        detail.Unpack(retry)
    seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return Refusal(error.code().name, error.details(), info.reason, dict(info.metadata), seconds)


def _details(error: Any) -> Any:
    status = rpc_status.from_call(error)
    return status.details if status else ()


Scenario = Callable[[Callable[..., Awaitable[Caller]]], Awaitable[None]]

VIEWER, SUBMITTER, ADMIN = token_pb2.ROLE_VIEWER, token_pb2.ROLE_SUBMITTER, token_pb2.ROLE_ADMIN


@pytest.fixture
def ledger_url(redis_url: str) -> str:
    """Where no other server leads."""
    return f"{redis_url}?db=6"


@pytest.fixture
def redis_client(ledger_url: str) -> Iterator[redis.Redis]:
    """A client of this test's ledger. On the common one a token would close the lasting server for good."""
    settings = Settings(redis_url=ledger_url, redis_password=None, artifacts="", data_roots=(), leases=Leases())
    with connect(settings) as client:
        yield client


@pytest.fixture
def play(ledger_url: str, artifacts_root: Path, data_root: Path) -> Callable[[Scenario], None]:
    """Runs a scenario, which starts its servers with `await serve(**settings)` and gets a caller without a token."""
    settings = Settings(
        redis_url=ledger_url,
        redis_password=None,
        artifacts=str(artifacts_root),
        data_roots=(str(data_root),),
        leases=Leases(),
    )

    @asynccontextmanager
    async def serving(listen: str = "127.0.0.1:0", **access: Any) -> AsyncIterator[Caller]:
        options = Options(listen=listen, access=AccessSettings(**access), keepalive=600, grace=0.5)
        app = App(settings, options)
        address = await app.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                yield Caller(channel)
        finally:
            await app.stop()

    def run(scenario: Scenario) -> None:
        async def within() -> None:
            async with AsyncExitStack() as stack:
                await scenario(lambda **access: stack.enter_async_context(serving(**access)))

        asyncio.run(within())

    return run


async def eventually(what: Callable[[], Awaitable[object]], seconds: float = 60.0) -> Any:
    """What `what` returns once it is true."""
    async with asyncio.timeout(seconds):
        while not (found := await what()):
            await asyncio.sleep(0.02)
        return found
