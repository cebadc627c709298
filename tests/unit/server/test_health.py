"""The health service, among callers who mean harm: it asks nobody for a token."""

import asyncio
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from podium.server.assembly import Assembled
from podium.server.health import MOST_OF_ALL, MOST_OF_ONE
from podium.server.observing import ServerState
from tests.hostile import frames
from tests.hostile.frames import Line, frame, header_block, message

_WATCH = "/grpc.health.v1.Health/Watch"


def _open_watches(line: Line, count: int = 1) -> int:
    """How many of them the server does not end at once."""
    waiting, ended = set(range(1, 2 * count, 2)), set()
    for stream in sorted(waiting):
        call = frame(frames.HEADERS, header_block(_WATCH), flags=frames.END_HEADERS, stream=stream)
        line.send(call + frame(frames.DATA, message(b""), flags=frames.END_STREAM, stream=stream))
    for kind, flags, stream, _ in line.frames(10):
        if kind == frames.HEADERS:
            waiting.remove(stream)
            ended |= {stream} if flags & frames.END_STREAM else set()
        if not waiting:
            return count - len(ended)
    raise AssertionError(f"no answer to {waiting}")


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
            assert 1 == await asyncio.to_thread(_open_watches, line)
            async with grpc.aio.insecure_channel(address) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                watch = health.Watch(health_pb2.HealthCheckRequest())
                assert health_pb2.HealthCheckResponse.SERVING == await _told(watch)

                assembled.set_health(ServerState.LEDGER_LOST)
                assert health_pb2.HealthCheckResponse.NOT_SERVING == await _told(watch)
            async with asyncio.timeout(10):
                await assembled.server.stop(0.1)

    asyncio.run(scenario())


def test_health_is_watched_so_often_from_one_address_and_so_often_in_all():
    async def scenario() -> None:
        assembled = Assembled({}, with_reflection=False)
        address = f"127.0.0.1:{assembled.server.add_insecure_port('127.0.0.1:0')}"
        await assembled.server.start()

        async def opened(health: Any) -> Any:
            """The one watch too many, or None where it is a good one."""
            watch = health.Watch(health_pb2.HealthCheckRequest())
            try:
                await _told(watch)
            except grpc.aio.AioRpcError as error:
                return error
            watches.append(watch)
            return None

        watches: list[Any] = []
        async with grpc.aio.insecure_channel(address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            assert [None] * MOST_OF_ONE == [await opened(health) for _ in range(MOST_OF_ONE)]
            error = await opened(health)
            assert grpc.StatusCode.RESOURCE_EXHAUSTED is error.code()
            assert "from one address" in error.details()
            assert any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata())
            await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            watches[0].cancel()
            async with asyncio.timeout(10):
                while await opened(health):
                    pass

            with ExitStack() as stack:
                addresses = range(2, MOST_OF_ALL // MOST_OF_ONE + 3)
                lines = [stack.enter_context(Line(address, source=f"127.0.0.{number}")) for number in addresses]
                held = [await asyncio.to_thread(_open_watches, line, MOST_OF_ONE) for line in lines]
                assert [*[MOST_OF_ONE] * (len(lines) - 2), 0, 0] == held
        await assembled.server.stop(0)

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
