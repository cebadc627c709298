"""The health service, among callers who mean harm: it asks nobody for a token."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from podium.server.assembly import Assembled
from podium.server.observing import ServerState
from tests.hostile import frames
from tests.hostile.frames import Line, frame, header_block, message

_WATCH = "/grpc.health.v1.Health/Watch"


def _open_a_watch(line: Line) -> None:
    """Returns once the server answers."""
    call = frame(frames.HEADERS, header_block(_WATCH), flags=frames.END_HEADERS, stream=1)
    line.send(call + frame(frames.DATA, message(b""), flags=frames.END_STREAM, stream=1))
    assert any(kind == frames.HEADERS for kind, *_ in line.frames(10))


async def _told(watch: Any) -> int:
    """The next status that a watcher is told."""
    async with asyncio.timeout(10):
        return int((await watch.read()).status)


def test_a_watcher_of_health_who_does_not_read_keeps_others_from_nothing_and_the_server_from_stopping():
    async def scenario() -> None:
        assembled = Assembled({}, with_reflection=False)
        address = f"127.0.0.1:{assembled.server.add_insecure_port('127.0.0.1:0')}"
        await assembled.server.start()
        assembled.set_health(ServerState.SERVING)
        with Line(address, initial_window=0) as line:
            await asyncio.to_thread(_open_a_watch, line)
            async with grpc.aio.insecure_channel(address) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                watch = health.Watch(health_pb2.HealthCheckRequest())
                assert health_pb2.HealthCheckResponse.SERVING == await _told(watch)

                assembled.set_health(ServerState.LEDGER_LOST)
                assert health_pb2.HealthCheckResponse.NOT_SERVING == await _told(watch)
            async with asyncio.timeout(10):
                await assembled.server.stop(0.1)

    asyncio.run(scenario())


def test_a_watcher_of_a_service_that_there_is_not_is_told_so_and_a_check_of_it_is_not_found():
    async def scenario() -> None:
        assembled = Assembled({}, with_reflection=False)
        address = f"127.0.0.1:{assembled.server.add_insecure_port('127.0.0.1:0')}"
        await assembled.server.start()
        async with grpc.aio.insecure_channel(address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            nobody = health_pb2.HealthCheckRequest(service="nobody")
            assert health_pb2.HealthCheckResponse.SERVICE_UNKNOWN == await _told(health.Watch(nobody))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health.Check(nobody, timeout=10)
            assert grpc.StatusCode.NOT_FOUND is caught.value.code()
        await assembled.server.stop(0)

    asyncio.run(scenario())
