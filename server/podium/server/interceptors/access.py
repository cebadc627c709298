"""Who calls, whether not too often, and whether they may: see podium.server.access. Reflection asks for a token too."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import Message

from podium.jobs.errors import PodiumError
from podium.server.access import Door, facts
from podium.server.interceptors._around import Around, Call
from podium.server.interceptors.errors import abort

_REFLECTION = "/grpc.reflection."


class _Admitted:
    # A class, not a generator: every call passes here.

    def __init__(self, door: Door, call: Call) -> None:
        self._door = door
        self._call = call
        self._stream: AbstractContextManager[None] | None = None

    async def __aenter__(self) -> None:
        call, known = self._call, facts()
        self._door.note(call.method, call.request)
        known.caller, name = await self._door.identify(call.context, call.request)
        await self._door.admit(call.method, call.request, known.caller)
        if call.streams:
            self._stream = self._door.limits.stream(name)
            self._stream.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.__exit__(None, None, None)


class AccessInterceptor(Around, grpc.aio.ServerInterceptor):
    """Health, which is nobody's business and everybody's, passes untouched.

    Args:
        door: lets calls in.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Lets the call in, or refuses it."""
        return _Admitted(self._door, call)

    def _stream(
        self, method: str, behaviour: Callable[..., AsyncGenerator[Message, None]]
    ) -> Callable[..., AsyncGenerator[Message, None]]:
        def answer(request: Message, context: Any) -> AsyncGenerator[Message, None]:
            return self._door.keyring.leashed(behaviour(request, context), facts().caller)

        return super()._stream(method, answer)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wraps reflection's handler."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_REFLECTION):
            return handler

        async def answer(requests: Any, context: Any) -> AsyncGenerator[Message, None]:
            try:
                await self._door.identify(context)
            except PodiumError as error:
                await abort(context, error)
            async with aclosing(handler.stream_stream(requests, context)) as responses:
                async for response in responses:
                    yield response

        return grpc.stream_stream_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)
