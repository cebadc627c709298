"""Who calls, whether not too often, and whether they may: see podium.server.access."""

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import TypeVar

from podium.server.access import Door, counted_as, facts
from podium.server.interceptors._call import Call

T = TypeVar("T")


class Access:
    """Lets calls in.

    Args:
        door: says who may.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def admit(self, call: Call) -> None:
        """Lets the call in, or raises why not: see podium.server.access.Door."""
        await self._door.admit(call.method, call.request, call.context)

    async def identify(self, call: Call) -> None:
        """Lets the call in, whoever makes it, where they would be let in at all."""
        facts().caller = await self._door.identify(call.context)

    def slot(self, call: Call) -> AbstractContextManager[None]:
        """One of so many streams that a caller may have open.

        Raises:
            ResourceExhaustedError: when it is entered, and it is one too many.
        """
        return self._door.limits.stream(counted_as(facts().caller, call.context))

    def leashed(self, responses: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """A stream's responses, for as long as its caller would be let in."""
        return self._door.keyring.leashed(responses, facts().caller)
