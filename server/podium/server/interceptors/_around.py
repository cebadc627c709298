"""An interceptor as one context manager around each call, whether it answers once or streams."""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

#: The contract, and what KEDA asks.
_OURS = ("/podium.api.v1.", "/externalscaler.")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of an rpc of ours."""

    method: str
    """Such as "JobService/GetJob"."""
    streams: bool
    request: Message
    context: Any


class Around(grpc.aio.ServerInterceptor):
    """Health and reflection, which are not ours, pass untouched."""

    @abstractmethod
    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """What happens before and after the call."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wraps the handler."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        codecs = (handler.request_deserializer, handler.response_serializer)
        name = method.rpartition(".")[2]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(name, handler.unary_stream), *codecs)
        return grpc.unary_unary_rpc_method_handler(self._unary(name, handler.unary_unary), *codecs)

    def _unary(self, method: str, behaviour: Callable[..., Awaitable[Message]]) -> Callable[..., Awaitable[Message]]:
        async def answer(request: Message, context: Any) -> Message:
            async with self.around(Call(method=method, streams=False, request=request, context=context)):
                return await behaviour(request, context)
            raise AssertionError("an interceptor swallowed an error")

        return answer

    def _stream(
        self, method: str, behaviour: Callable[..., AsyncGenerator[Message, None]]
    ) -> Callable[..., AsyncGenerator[Message, None]]:
        async def answer(request: Message, context: Any) -> AsyncGenerator[Message, None]:
            call = Call(method=method, streams=True, request=request, context=context)
            # gRPC closes only the outermost generator; the ones within must not wait for the garbage collector.
            async with self.around(call), aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

        return answer
