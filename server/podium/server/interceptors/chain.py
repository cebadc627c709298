"""Puts around an rpc what happens around every call, once, when the server is put together.

gRPC's own interceptors would be put together anew at every call. A call that answers and one that streams end in the
same few lines, twice: a generator cannot hand its `except` to somebody else.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, nullcontext
from typing import Any

from google.protobuf.message import Message

from podium.server.interceptors._call import Call, Observer
from podium.server.interceptors._outcome import outcome
from podium.server.interceptors.access import Access
from podium.server.interceptors.deadline import LONGEST, Limits, allowed
from podium.server.interceptors.errors import conclude
from podium.server.interceptors.validation import refuse_invalid
from podium.server.unreadable import refuse_unreadable

Answers = Callable[[Message, Any], Awaitable[Message]]
Streams = Callable[[Message, Any], AsyncGenerator[Message, None]]


class Chain:
    """What happens around every call, in the order that podium.server.interceptors gives and explains.

    Args:
        observers: the first one sees everything that the others do.
        access: lets calls in; None: everybody may do everything.
        longest: seconds that a call which answers once may take.
    """

    def __init__(self, observers: Sequence[Observer], access: Access | None = None, longest: float = LONGEST) -> None:
        self._observers = observers
        self._access = access
        self._longest = longest
        self._limits = Limits()

    def answering(self, method: str, behaviour: Answers) -> Answers:
        """The behaviour of an rpc that answers once, with everything around it.

        Args:
            method: as `Call.method`.
            behaviour: answers.
        """

        async def answer(request: Message, context: Any) -> Message:
            call = Call(method, False, request, context)
            kept = self._begun(call)
            error: BaseException | None = None
            try:
                with self._limits.within(allowed(context, self._longest)):
                    await self._admit(call)
                    return await behaviour(request, context)
            except Exception as raised:
                error = raised
                return await conclude(context, raised)
            except BaseException as raised:
                error = raised
                raise
            finally:
                _ended(call, kept, error)

        return answer

    def streaming(self, method: str, behaviour: Streams, *, foreign: bool = False) -> Streams:
        """As `answering`, of an rpc that streams. It has no limit of time: it ends when its caller goes.

        Args:
            method: as `Call.method`.
            behaviour: answers.
            foreign: whether it is of another contract than ours, whose requests we do not know: then whoever has a
                token may call it.
        """
        admit = self._identify if foreign else self._admit

        async def answer(request: Message, context: Any) -> AsyncGenerator[Message, None]:
            call = Call(method, True, request, context)
            kept = self._begun(call)
            error: BaseException | None = None
            try:
                await admit(call)
                with self._access.slot(call) if self._access else nullcontext():
                    responses = behaviour(request, context)
                    # gRPC closes only this generator; the one within must not wait for the garbage collector.
                    async with aclosing(self._access.leashed(responses) if self._access else responses) as leashed:
                        async for response in leashed:
                            yield response
            except Exception as raised:
                error = raised
                await conclude(context, raised)
            except BaseException as raised:
                error = raised
                raise
            finally:
                _ended(call, kept, error)

        return answer

    async def _admit(self, call: Call) -> None:
        refuse_unreadable()
        if self._access is not None:
            await self._access.admit(call)
        refuse_invalid(call)

    async def _identify(self, call: Call) -> None:
        if self._access is not None:
            await self._access.identify(call)

    def _begun(self, call: Call) -> Sequence[tuple[Observer, Any]]:
        return [(observer, observer.before(call)) for observer in self._observers]


def _ended(call: Call, kept: Sequence[tuple[Observer, Any]], error: BaseException | None) -> None:
    status = outcome(call, error)
    for observer, its in reversed(kept):
        observer.after(call, its, status)
