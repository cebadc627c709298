"""`python -m benchmarks.service.echo`: a grpc.aio server that answers with what it got, messages of the contract."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import redis.asyncio
import uvloop
from google.protobuf.message import Message

from podium.api.v1 import job_service_pb2 as pb
from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.job_pb2 import Job
from podium.jobs.store._redis_keys import FIELDS, Keys

#: Method -> the message that comes and goes.
_MESSAGES: dict[str, type[Message]] = {
    "CreateJob": pb.CreateJobRequest,
    "GetJob": pb.GetJobResponse,
}
_KEYS = Keys(prefix="podium:")


async def _echo(request: Message, context: Any) -> Message:
    return request


class _Asking:
    """Asks Redis for the job and answers with what it was sent: the least for who keeps no jobs itself."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url)

    async def answer(self, request: pb.GetJobResponse, context: Any) -> Message:
        if not any(await self._redis.hmget(_KEYS.job(request.job.id), FIELDS)):
            raise LookupError(request.job.id)
        return request


async def _watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """A snapshot, then the request's bytes twice a second, twenty times."""
    yield pb.WatchJobResponse(event=JobEvent(snapshot=Job())).SerializeToString()
    for _ in range(20):
        await asyncio.sleep(0.5)
        yield request


def _unary(behaviour: Any, message: type[Message]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        behaviour, request_deserializer=message.FromString, response_serializer=message.SerializeToString
    )


async def _serve(port_file: Path, redis_url: str) -> None:
    server = grpc.aio.server()
    handlers = {name: _unary(_echo, message) for name, message in _MESSAGES.items()}
    if redis_url:
        handlers["GetJobOfRedis"] = _unary(_Asking(redis_url).answer, pb.GetJobResponse)
    handlers["Watch"] = grpc.unary_stream_rpc_method_handler(_watch)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmarks.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    port_file.with_suffix(".part").write_text(f"127.0.0.1:{port}\n", encoding="utf-8")
    port_file.with_suffix(".part").rename(port_file)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--redis-url", default="")
    parser.add_argument("--uvloop", action="store_true", help="on the loop that our server runs on, not asyncio's own")
    told = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if told.uvloop else None) as runner:
        runner.run(_serve(told.port_file, told.redis_url))
