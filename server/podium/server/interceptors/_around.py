"""An interceptor as one context manager around each call, whether it answers once or streams."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of an rpc of ours."""

    method: str
    """Such as "JobService/GetJob"."""
    streams: bool
    request: Message
    context: Any


class Around(ABC):
    """Wraps an rpc once, when the server is put together; gRPC's own interceptors would at every call."""

    @abstractmethod
    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """What happens before and after the call."""

    def wrapped(self, method: str, behaviour: Any, *, streams: bool) -> Any:
        """The behaviour with `around` around it.

        Args:
            method: as `Call.method`.
            behaviour: answers, or streams.
            streams: which of the two.
        """
        return self._stream(method, behaviour) if streams else self._unary(method, behaviour)

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
