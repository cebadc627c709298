"""Bytes that are no message: INVALID_ARGUMENT, where gRPC itself would say UNKNOWN and log a traceback for each.

gRPC reads a request before any code of ours sees it, in the task of its call. So what cannot be read becomes an empty
message, is noted beside it, and is refused by the first interceptor that may refuse.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from podium.jobs.errors import FieldViolation, InvalidSpecError, PodiumError

Streams = Callable[[Any, Any], AsyncGenerator[Message, None]]
_UNREADABLE: ContextVar[str] = ContextVar("unreadable", default="")


def reader(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
    """Reads requests, as `parse` does, without ever raising."""

    def read(data: bytes) -> Message:
        try:
            return parse(data)
        except DecodeError as error:
            _UNREADABLE.set(str(error))
            return parse(b"")

    return read


def refuse_unreadable() -> None:
    """Refuses the call in hand where its request could not be read.

    Raises:
        InvalidSpecError: it could not, and why.
    """
    if sentence := _UNREADABLE.get():
        raise InvalidSpecError((FieldViolation(field="", description=sentence),), message=sentence)


class Foreign:
    """What generated code of others registers its handlers with, so that theirs refuse what they cannot read, too.

    Args:
        server: what serves them.
        abort: ends a call with the status of an error.
        around: puts around a call that streams both ways what happens around every stream; gets its name as well.
    """

    def __init__(
        self, server: grpc.aio.Server, abort: Callable[..., Any], around: Callable[[str, Streams], Streams]
    ) -> None:
        self._server = server
        self._abort = abort
        self._around = around

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Nothing: the same handlers come by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds the handlers of a service."""
        short = service.rpartition(".")[2]
        wrapped = {name: self._wrapped(f"{short}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    def _wrapped(self, method: str, handler: Any) -> Any:
        read = reader(handler.request_deserializer)
        if handler.request_streaming:

            def stream(requests: Any, context: Any) -> AsyncGenerator[Message, None]:
                responses: AsyncGenerator[Message, None] = handler.stream_stream(_checked(requests), context)
                return responses

            around = self._around(method, stream)
            return grpc.stream_stream_rpc_method_handler(around, read, handler.response_serializer)

        async def answer(request: Message, context: Any) -> Any:
            try:
                refuse_unreadable()
                return await (handler.unary_stream or handler.unary_unary)(request, context)
            except PodiumError as error:
                await self._abort(context, error)

        wrap = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        return wrap(answer, read, handler.response_serializer)


async def _checked(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        refuse_unreadable()
        yield request
