"""No call that answers once takes longer than its caller waits, or than a minute."""

from typing import Any

from podium.jobs.errors import DeadlineExceededError

LONGEST = 60.0
# So that our answer is there before the caller gives up.
_MARGIN = 0.05


def allowed(context: Any, longest: float) -> float:
    """Seconds that a call may take."""
    left = context.time_remaining()
    return longest if left is None else min(longest, max(left - _MARGIN, 0.0))


def too_late(seconds: float) -> DeadlineExceededError:
    """What a caller is told after so many seconds."""
    return DeadlineExceededError(
        f"no answer within {seconds:.1f} s, and it may still be carried out; look before asking again, "
        "or ask with the same request_id"
    )
