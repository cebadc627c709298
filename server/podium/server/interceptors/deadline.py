"""No call that answers once takes longer than its caller waits, or than a minute."""

import asyncio
from types import TracebackType
from typing import Any

from podium.jobs.errors import DeadlineExceededError

LONGEST = 60.0
# So that our answer is there before the caller gives up.
_MARGIN = 0.05


def allowed(context: Any, longest: float) -> float:
    """Seconds that a call may take."""
    left = context.time_remaining()
    return longest if left is None else min(longest, max(left - _MARGIN, 0.0))


class Limit:
    """A `with` block that ends after so many seconds. As asyncio.timeout, which costs a call three times as much.

    Args:
        seconds: as many.

    Raises:
        DeadlineExceededError: at its end, where they were over before it was.
    """

    __slots__ = ("_expired", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # gRPC runs every call in one
        self._seconds = seconds
        self._task = task
        self._expired = False

    def __enter__(self) -> None:
        self._timer = self._task.get_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Only what was cancelled by us and by nobody else is late.
        if self._expired and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise DeadlineExceededError(
                f"no answer within {self._seconds:.1f} s, and it may still be carried out; look before asking again, "
                "or ask with the same request_id"
            ) from error
