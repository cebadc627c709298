"""Which changes of a job are told to the world outside."""

from podium.jobs.events import StateChange
from podium.jobs.job import Cause
from podium.jobs.notices import Notice
from podium.jobs.states import HOLDING_A_SLOT
from podium.jobs.store._record import Change

#: So many notices are kept for who reads them; the oldest go.
NOTICES_KEPT = 10_000


def notices_of(change: Change) -> tuple[Notice, ...]:
    """What a change is worth telling: that an attempt ended as STALLED, and that the job ended."""
    found = []
    if _stalled(change):
        found.append(_notice(change, "STALLED", Cause.STALLED))
    job = change.record.job
    if change.path and job.state.terminal:
        found.append(_notice(change, job.state.name, job.error.cause if job.error else None))
    return tuple(found)


def _stalled(change: Change) -> bool:
    """Whether an attempt ended in this very change, as it had stalled."""
    moves = (event.payload for event in change.events if isinstance(event.payload, StateChange))
    left = any(move.from_state in HOLDING_A_SLOT and move.to_state not in HOLDING_A_SLOT for move in moves)
    return left and change.record.job.attempts[-1].cause is Cause.STALLED


def _notice(change: Change, event: str, cause: Cause | None) -> Notice:
    job, time = change.record.job, change.events[-1].time
    if time is None:
        raise AssertionError("a move without its time")
    return Notice(
        # A job ends once, and so does an attempt.
        id=f"{job.id}-{job.attempt}-{event}",
        event=event,
        job_id=job.id,
        project=job.project,
        state=job.state,
        attempt=job.attempt,
        time=time,
        cause=cause,
        create_time=job.create_time,
        start_time=job.start_time,
        end_time=job.end_time,
    )
