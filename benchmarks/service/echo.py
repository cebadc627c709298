"""`python -m benchmarks.service.echo`: a grpc.aio server that answers with what it got, messages of the contract."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from podium.api.v1 import job_service_pb2 as pb
from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.job_pb2 import Job

#: Method -> the message that comes and goes.
_MESSAGES: dict[str, type[Message]] = {
    "CreateJob": pb.CreateJobRequest,
    "GetJob": pb.GetJobResponse,
}


async def _echo(request: Message, context: Any) -> Message:
    return request


async def _watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """A snapshot, then the request's bytes twice a second, twenty times."""
    yield pb.WatchJobResponse(event=JobEvent(snapshot=Job())).SerializeToString()
    for _ in range(20):
        await asyncio.sleep(0.5)
        yield request


async def _serve(port_file: Path) -> None:
    server = grpc.aio.server()
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _echo, request_deserializer=message.FromString, response_serializer=message.SerializeToString
        )
        for name, message in _MESSAGES.items()
    }
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
    asyncio.run(_serve(parser.parse_args().port_file))
