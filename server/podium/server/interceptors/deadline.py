"""No call that answers once takes longer than its caller waits, or than a minute."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from podium.jobs.errors import DeadlineExceededError
from podium.server.interceptors._around import Around, Call

LONGEST = 60.0
# So that our answer is there before the caller gives up.
_MARGIN = 0.05


class DeadlineInterceptor(Around):
    """Streams are left alone: they end when their caller goes."""

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Ends the call with DEADLINE_EXCEEDED in time."""
        if call.streams:
            yield
            return
        left = call.context.time_remaining()
        seconds = self._longest if left is None else min(self._longest, max(left - _MARGIN, 0.0))
        try:
            async with asyncio.timeout(seconds) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceededError(
                f"no answer within {seconds:.1f} s, and it may still be carried out; look before asking again, "
                "or ask with the same request_id"
            ) from error
