"""No call that answers once takes longer than its caller waits, or than a minute."""

import asyncio
import time
from typing import Any

from podium.jobs.errors import DeadlineExceededError

LONGEST = 60.0
# So that our answer is there before the caller gives up.
_MARGIN = 0.05
_LOOK = 0.02


def allowed(context: Any, longest: float) -> float:
    """Seconds that a call may take."""
    left = context.time_remaining()
    return longest if left is None else min(longest, max(left - _MARGIN, 0.0))


class Limits:
    """Ends calls that take too long. One timer looks after all of them: to set one for each costs 8 us of every call.

    Args:
        every: seconds between two looks, while there are calls; one may go on for so much longer than it may.
    """

    def __init__(self, every: float = _LOOK) -> None:
        self._every = every
        self._open: set[_Limit] = set()
        self._looking = False

    def within(self, seconds: float) -> "_Limit":
        """A `with` block in a task that ends after so many seconds.

        Raises:
            DeadlineExceededError: at its end, where they were over before it was.
        """
        return _Limit(self, seconds)

    def begin(self, limit: "_Limit") -> None:
        """Looks after it, too."""
        self._open.add(limit)
        if not self._looking:
            self._looking = True
            limit.task.get_loop().call_later(self._every, self._look, limit.task.get_loop())

    def end(self, limit: "_Limit") -> None:
        """No longer looks after it."""
        self._open.discard(limit)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        for limit in [limit for limit in self._open if limit.end <= now]:
            self._open.discard(limit)
            limit.expire()
        self._looking = bool(self._open)
        if self._looking:
            loop.call_later(self._every, self._look, loop)


class _Limit:
    """A call that may take so many seconds."""

    __slots__ = ("_expired", "_limits", "_seconds", "end", "task")

    def __init__(self, limits: Limits, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # gRPC runs every call in one
        self._limits = limits
        self._seconds = seconds
        self._expired = False
        self.task = task
        self.end = time.monotonic() + seconds

    def __enter__(self) -> None:
        self._limits.begin(self)

    def expire(self) -> None:
        self._expired = True
        self.task.cancel()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._limits.end(self)
        # Only what was cancelled by us and by nobody else is late.
        if self._expired and self.task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise DeadlineExceededError(
                f"no answer within {self._seconds:.1f} s, and it may still be carried out; look before asking again, "
                "or ask with the same request_id"
            ) from error
