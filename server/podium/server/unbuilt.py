"""The rpcs of the contract that are not built yet, and what to do instead of each."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from podium.jobs.errors import UnimplementedError

#: By "Service/Method", or by "Service" for all of its methods.
INSTEAD: Mapping[str, str] = {
    "ServerService/ListDatasets": "ask whoever runs the server where the images lie",
}


def unbuilt(method: MethodDescriptor) -> Callable[..., Awaitable[Message]] | Callable[..., AsyncIterator[Message]]:
    """The behaviour of an rpc that is not built: UNIMPLEMENTED, and what to do instead."""
    service = method.containing_service.name
    instead = INSTEAD.get(f"{service}/{method.name}") or INSTEAD.get(service, "ask whoever runs this server")
    error = UnimplementedError(f"{method.name} is not built yet; {instead}")

    async def answer(request: Message, context: Any) -> Message:
        raise error

    async def stream(request: Message, context: Any) -> AsyncIterator[Message]:
        raise error
        yield request  # makes it a generator

    return stream if method.server_streaming else answer
