"""What the ledger knows of a job, and every change that it allows: pure functions, the same for every store.

A store loads a Record, lets one of these functions make a Change of it, and writes that Change in one step, provided
that nobody wrote in between. Which queue, slots and lease a job has follows from its state, so that no change can
forget to free one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from podium.jobs.errors import FailedPreconditionError, StaleFenceError
from podium.jobs.events import JobEvent, LogBatch, MetricBatch, Payload, StateChange
from podium.jobs.job import Attempt, Checkpoint, Job, JobError, Progress, slots_in_words
from podium.jobs.states import HOLDING_A_SLOT, MOVES, State
from podium.jobs.store._base import Assignment, NewJob, Wish


@dataclass(frozen=True, kw_only=True)
class Record:
    """A job and what only the ledger knows of it."""

    job: Job
    number: int
    """The job's place in the order of creation."""
    stamp: str = ""
    """Of the last write: who finds another one than it read has been overtaken."""
    fence: int = 0
    wish: Wish = Wish.CONTINUE
    batch: int = 0
    """The last batch of events that the present attempt appended."""
    starter: str = ""
    """The token of the process that began the present attempt."""
    ended_by: int = 0
    """The fence whose attempt finished the job."""
    best: str = ""
    """The id of the best checkpoint."""

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """The slots that the job holds, each with its machine; none where it holds none."""
        if self.job.state not in HOLDING_A_SLOT:
            return ()
        attempt = self.job.attempts[-1]
        return tuple((attempt.node, slot) for slot in attempt.slots)

    @property
    def assignment(self) -> Assignment:
        """The right to run the present attempt."""
        return Assignment(job_id=self.job.id, attempt=self.job.attempt, fence=self.fence)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one write does."""

    record: Record
    """As it will be."""
    events: tuple[JobEvent, ...] = ()
    """To append, without their sequence numbers; the last one's is `record.job.sequence`."""
    lease: float | None = None
    """Seconds that the attempt's lease lives from now on; None leaves it as it is."""
    forgotten: str = ""
    """A checkpoint to take off the list."""

    @property
    def numbered(self) -> list[tuple[int, JobEvent]]:
        """The events with their sequence numbers."""
        return list(enumerate(self.events, start=self.record.job.sequence - len(self.events) + 1))


def created(new: NewJob, job_id: str, number: int, now: datetime) -> Change:
    """A new job in QUEUED."""
    job = Job(
        id=job_id,
        project=new.project,
        spec=new.spec,
        classes=new.classes,
        state=State.QUEUED,
        create_time=now,
    )
    return _noted(Change(record=Record(job=job, number=number)), [StateChange(to_state=State.QUEUED)], now)


def cancelled(record: Record, reason: str, now: datetime) -> Change:
    """CANCELLED where nothing runs, CANCELLING where an attempt has to be told."""
    state = record.job.state
    if state in (State.CANCELLING, State.CANCELLED):
        return Change(record=record)
    if state.terminal:
        raise FailedPreconditionError(f"{record.job.id} has already ended as {state.name}; there is nothing to cancel")
    if not record.places:
        return _moved(Change(record=record), State.CANCELLED, now, reason=reason)
    return _moved(Change(record=replace(record, wish=Wish.CANCEL)), State.CANCELLING, now, reason=reason)


def dispatched(record: Record, node: str, slots: tuple[int, ...], now: datetime) -> Change:
    """A new attempt with a new fence, STARTING on the slots."""
    if len(set(slots)) < len(slots):
        raise ValueError(f"{record.job.id} cannot hold a slot twice: {slots}")
    number = record.job.attempt + 1
    attempt = Attempt(number=number, node=node, slot=slots[0], slots=slots, start_time=now)
    job = replace(record.job, attempt=number, attempts=(*record.job.attempts, attempt))
    begun = replace(record, job=job, fence=record.fence + 1, wish=Wish.CONTINUE, batch=0, starter="")
    return _moved(Change(record=begun), State.STARTING, now, reason=f"starting on {node}, {slots_in_words(slots)}")


def recovered(record: Record, assignment: Assignment, outcome: str, now: datetime) -> Change:
    """The lost attempt is closed; the job is back in the queue, or CANCELLED where that was wanted anyway."""
    _check_fence(record, assignment)
    ended = Change(record=_attempt_ended(record, outcome, now))
    if record.job.state is State.CANCELLING:
        return _moved(ended, State.CANCELLED, now, reason=outcome)
    return _moved(_moved(ended, State.RECOVERING, now, reason=outcome), State.QUEUED, now, reason=outcome)


def begun(record: Record, assignment: Assignment, starter: str, resumed_from_step: int, now: datetime) -> Change:
    """RUNNING, for the one process that shows `starter`.

    A job that was cancelled before its attempt came stays CANCELLING; its attempt begins, learns it and ends.
    """
    _check_fence(record, assignment)
    if record.starter == starter:
        return Change(record=record)
    if record.starter:
        raise StaleFenceError(f"attempt {assignment.attempt} of {assignment.job_id} was begun by another process")
    attempt = replace(record.job.attempts[-1], resumed_from_step=resumed_from_step)
    job = replace(record.job, attempts=(*record.job.attempts[:-1], attempt))
    if job.state is State.CANCELLING:
        return Change(record=replace(record, job=job, starter=starter))
    job = replace(job, start_time=job.start_time or now)
    return _moved(Change(record=replace(record, job=job, starter=starter)), State.RUNNING, now)


def renewed(record: Record, assignment: Assignment, lease: float) -> Change:
    """The lease lives on."""
    _check_fence(record, assignment)
    return Change(record=record, lease=lease)


def appended(
    record: Record,
    assignment: Assignment,
    batch: int,
    payloads: Sequence[MetricBatch | LogBatch | Progress],
    now: datetime,
) -> Change:
    """New events, unless the batch is there already."""
    _check_fence(record, assignment)
    if batch <= record.batch:
        return Change(record=record)
    progress = [payload for payload in payloads if isinstance(payload, Progress)]
    job = replace(record.job, progress=progress[-1]) if progress else record.job
    return _noted(Change(record=replace(record, job=job, batch=batch)), payloads, now)


def checkpoint_committed(record: Record, assignment: Assignment, checkpoint: Checkpoint, now: datetime) -> Change:
    """A checkpoint on the list, with its event. The store refuses an id that is registered."""
    _check_fence(record, assignment)
    marked = replace(record, best=checkpoint.id) if checkpoint.best else record
    return _noted(Change(record=marked), [replace(checkpoint, create_time=checkpoint.create_time or now)], now)


def checkpoint_forgotten(record: Record, assignment: Assignment, checkpoint_id: str) -> Change:
    """A checkpoint off the list."""
    _check_fence(record, assignment)
    return Change(record=record, forgotten=checkpoint_id)


def finished(
    record: Record, assignment: Assignment, state: State, reason: str, error: JobError | None, now: datetime
) -> Change:
    """The attempt ends the job."""
    if not state.terminal:
        raise ValueError(f"a job finishes as SUCCEEDED, FAILED or CANCELLED, not as {state.name}")
    if record.job.state is state and record.ended_by == assignment.fence:
        return Change(record=record)
    _check_fence(record, assignment)
    ended = replace(_attempt_ended(record, reason or state.name.lower(), now), ended_by=assignment.fence)
    return _moved(Change(record=ended), state, now, reason=reason, error=error)


def _check_fence(record: Record, assignment: Assignment) -> None:
    if not record.places or record.assignment != assignment:
        raise StaleFenceError(
            f"attempt {assignment.attempt} of {assignment.job_id} (fence {assignment.fence}) no longer holds the job, "
            f"which is {record.job.state.name} with fence {record.fence}; leave without writing anything"
        )


def _attempt_ended(record: Record, outcome: str, now: datetime) -> Record:
    """Nobody holds the present fence any more."""
    attempt = replace(record.job.attempts[-1], end_time=now, outcome=outcome)
    job = replace(record.job, attempts=(*record.job.attempts[:-1], attempt))
    return replace(record, job=job, fence=record.fence + 1, wish=Wish.CONTINUE)


def _moved(change: Change, state: State, now: datetime, *, reason: str = "", error: JobError | None = None) -> Change:
    """One legal move and its one event."""
    job = change.record.job
    if state not in MOVES[job.state]:
        raise FailedPreconditionError(f"{job.id} is {job.state.name} and cannot become {state.name}")
    event = StateChange(from_state=job.state, to_state=state, reason=reason, error=error)
    job = replace(
        job,
        state=state,
        terminal=state.terminal,
        state_reason=reason,
        error=error,
        end_time=now if state.terminal else None,
    )
    return _noted(replace(change, record=replace(change.record, job=job)), [event], now)


def _noted(change: Change, payloads: Sequence[Payload], now: datetime) -> Change:
    """More events, and the job's sequence raised by as many."""
    job = change.record.job
    events = tuple(JobEvent(payload=payload, job_id=job.id, attempt=job.attempt, time=now) for payload in payloads)
    job = replace(job, sequence=job.sequence + len(events))
    return replace(change, record=replace(change.record, job=job), events=change.events + events)
