"""What becomes of a job whose attempt ended before the job did: another attempt, when, or none."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from podium.jobs.job import Attempt, Cause, JobError

#: So many attempts in a row may end for this cause without having committed anything new; then the job counts as what
#: ends them. A cause that is not here says that the job itself is wrong: it is never tried again. PREEMPTED is nobody's
#: fault, and is tried again without limit.
#:
#: Whoever ended them: a process that was killed from outside looks like one that brought that about itself, and a job
#: that takes machines down, as by a driver that it crashes, looks like one that had bad luck with them. In a small pool
#: that is the same machine every time, so nothing is asked of their being different ones. But machines are lost for
#: many reasons, and processes for few: so that limit is twice as high, and each cause is counted by itself.
LIMITS: Mapping[Cause, int] = MappingProxyType(
    {Cause.NODE_LOST: 10, Cause.INTERNAL: 5, Cause.OOM_HOST: 3, Cause.STALLED: 3, Cause.STORAGE: 4}
)
_REMEDIES: Mapping[Cause, str] = MappingProxyType(
    {
        Cause.NODE_LOST: "look at the machines that it ran on; should the job take them down, make it smaller",
        Cause.INTERNAL: "look at the job's log and the worker's own",
        Cause.OOM_HOST: "halve batch_size, use a smaller backbone, or have fewer slots on the machine",
        Cause.STALLED: "the job's log has the stacks; where a step may take longer, raise stall_timeout_seconds",
        Cause.STORAGE: "look at the artifact store: whether it can be reached and has room",
    }
)
_FIRST_PAUSE: Mapping[Cause, float] = MappingProxyType({Cause.STORAGE: 10.0})
_LONGEST_PAUSE = 60.0


def pause(attempts: Sequence[Attempt]) -> float:
    """How many seconds a job waits before its next attempt: none at first, then longer from failure to failure.

    Args:
        attempts: of the job; the last one has ended, and `verdict` let the job go on.
    """
    cause = attempts[-1].cause
    if cause is None or cause is Cause.PREEMPTED:
        return 0.0
    streak = len(_streak(attempts))
    first = _FIRST_PAUSE.get(cause, 0.0)
    if streak == 0 or (streak == 1 and not first):
        return 0.0
    return min((first or 1.0) * 2.0 ** (streak - 1), _LONGEST_PAUSE)


def verdict(attempts: Sequence[Attempt]) -> JobError | None:
    """Why the job is not tried again; None: it is.

    Args:
        attempts: of the job; the last one has ended for its `cause`.
    """
    last = attempts[-1]
    if last.cause is None or last.cause is Cause.PREEMPTED:
        return None
    if last.cause not in LIMITS:
        return JobError(cause=last.cause, message=last.outcome)
    streak = _streak(attempts)
    if len([attempt for attempt in streak if attempt.cause is last.cause]) < LIMITS[last.cause]:
        return None
    message = f"{len(streak)} attempts in a row got no further than step {last.resumed_from_step}; {last.outcome}"
    return JobError(cause=last.cause, message=message, remedy=_REMEDIES[last.cause])


def _streak(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The last failed attempts in a row that committed nothing new; what was only interrupted does not count."""
    found: list[Attempt] = []
    for attempt in reversed(attempts):
        if attempt.progressed:
            break
        if attempt.cause is not None and attempt.cause is not Cause.PREEMPTED:
            found.append(attempt)
    return found
