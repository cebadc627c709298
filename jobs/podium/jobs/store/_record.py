"""What the ledger knows of a job, and every change that it allows: pure functions, the same for every store.

A store loads a Record, lets one of these functions make a Change of it, and writes that Change in one step, provided
that nobody wrote in between. Which queue, slots and lease a job has follows from its state, so that no change can
forget to free one.

Above 400 lines, as every change of the table is one short function, and one is only understood beside the others.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from podium.jobs import retries
from podium.jobs.errors import FailedPreconditionError, StaleFenceError
from podium.jobs.events import JobEvent, LogBatch, LogLine, MetricBatch, Payload, StateChange, log_batches
from podium.jobs.job import Attempt, Cause, Checkpoint, Job, JobError, Member, Progress, slots_in_words
from podium.jobs.spec import Priority
from podium.jobs.states import HOLDING_A_SLOT, MOVES, State
from podium.jobs.store._terms import Assignment, Wish

#: Fields of a job that are set at creation and never written again, so that what a newer version wrote into a spec
#: survives an older one.
BORN = frozenset({"id", "project", "spec", "classes", "create_time", "created_by", "trace_parent"})


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
    rendezvous: str = ""
    """Where the present attempt's other machines find its first one."""
    lines: int | None = 0
    """The lines of its log so far; None: a version that does not count them has written."""
    log_parts: tuple[tuple[int, int], ...] = ()
    """What is kept of its log, in parts: the sequence that each begins with, and its bytes. The oldest goes first."""
    past: int = 0
    """How many ended attempts a store keeps apart from what it writes often; no change touches it."""

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """The slots that the job holds, each with its machine; none where it holds none."""
        if self.job.state not in HOLDING_A_SLOT:
            return ()
        return tuple((member.node, slot) for member in self.job.attempts[-1].members for slot in member.slots)

    @property
    def starts_from(self) -> str:
        """The id of the checkpoint, of another job, whose weights the job starts from; empty: none."""
        weights = self.job.spec.weights
        return (weights.checkpoint if weights else None) or ""

    @property
    def score(self) -> int:
        """Orders a queue by priority, then creation; exact in a double up to 2**50 jobs."""
        return first_place(self.job.spec.priority) + self.number

    @property
    def assignment(self) -> Assignment:
        """The right to run the present attempt."""
        return Assignment(job_id=self.job.id, attempt=self.job.attempt, fence=self.fence)


def places_in_line(priority: Priority) -> tuple[int, int]:
    """What scores of a class lie between, the second one excluded."""
    return first_place(priority), first_place(priority) + 2**50


def first_place(priority: Priority) -> int:
    """What all scores of a class lie above, each by the number of its job."""
    return -priority.value * 2**50


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
    amended: bool = False
    """Whether the spec's priority and labels are to be written too."""
    faulty: str = ""
    """A machine whose hardware has failed."""

    @property
    def numbered(self) -> list[tuple[int, JobEvent]]:
        """The events with their sequence numbers."""
        return list(enumerate(self.events, start=self.record.job.sequence - len(self.events) + 1))

    @property
    def lines_before(self) -> int:
        """The lines of the job's log before those of this change; 0 where they are not counted."""
        batches = (event.payload for event in self.events)
        new = sum(len(batch.lines) for batch in batches if isinstance(batch, LogBatch))
        return 0 if self.record.lines is None else self.record.lines - new

    def first_kept(self, before: Record) -> int:
        """The sequence that the log is to begin with from now on; 0: nothing of it goes."""
        parts = before.log_parts
        return self.record.log_parts[0][0] if parts and parts[0][0] != self.record.log_parts[0][0] else 0

    @property
    def path(self) -> tuple[State, ...]:
        """The states that the job passes through; the last one is where it will be. Empty: it stays."""
        payloads = (event.payload for event in self.events)
        return tuple(payload.to_state for payload in payloads if isinstance(payload, StateChange))

    def tally(self, before: Record) -> tuple[Cause | State | None, ...]:
        """What is counted of it: the cause of an attempt that it ends (None: without one), the state of such a job."""
        counted: list[Cause | State | None] = []
        held, after = before.job.attempts, self.record.job
        if held and held[-1].end_time is None and (ended := after.attempts[len(held) - 1]).end_time is not None:
            counted.append(ended.cause)
        if after.terminal:  # not before: nothing follows an end
            counted.append(after.state)
        return tuple(counted)

    def follows(self, before: Record) -> bool:
        """Whether the table of moves allows it, step by step; nothing follows an end. lua/commit.lua says the same."""
        if before.job.state.terminal or self.record.fence < before.fence:
            return False
        states = (before.job.state, *self.path)
        return all(to in MOVES[state] for state, to in itertools.pairwise(states))


def cancelled(record: Record, reason: str, force: bool, now: datetime) -> Change:
    """CANCELLED where nothing runs or nothing is to be waited for; else CANCELLING, as an attempt has to be told."""
    state = record.job.state
    if state is State.CANCELLED or (state is State.CANCELLING and not force):
        return Change(record=record)
    if state.terminal:
        raise FailedPreconditionError(f"{record.job.id} has already ended as {state.name}; there is nothing to cancel")
    if not record.places:
        return _moved(Change(record=record), State.CANCELLED, now, reason=reason)
    asked = Change(record=_asked_to_stop(record, Wish.CANCEL, now))
    if state is not State.CANCELLING:
        asked = _moved(asked, State.CANCELLING, now, reason=reason)
    if not force:
        return asked
    ended = replace(asked, record=_attempt_ended(asked.record, "cancelled by force", now))
    return _moved(ended, State.CANCELLED, now, reason=reason)


def paused(record: Record, reason: str, now: datetime) -> Change:
    """PAUSED where nothing runs; else PAUSING, as an attempt has to be told."""
    state = record.job.state
    if state in (State.PAUSING, State.PAUSED):
        return Change(record=record)
    if state.terminal or state is State.CANCELLING:
        raise FailedPreconditionError(f"{record.job.id} is {state.name}; there is nothing to pause")
    if not record.places:
        return _moved(Change(record=record), State.PAUSED, now, reason=reason)
    return _moved(Change(record=_asked_to_stop(record, Wish.PAUSE, now)), State.PAUSING, now, reason=reason)


def resumed(record: Record, now: datetime) -> Change:
    """QUEUED, from PAUSED."""
    state = record.job.state
    if state is State.PAUSED:
        return _moved(Change(record=record), State.QUEUED, now, reason="resumed")
    if state is State.PAUSING:
        raise FailedPreconditionError(f"{record.job.id} is still saving its work; resume it once it is PAUSED")
    if state.terminal or state is State.CANCELLING:
        raise FailedPreconditionError(f"{record.job.id} is {state.name}; there is nothing to resume")
    return Change(record=record)


def updated(record: Record, priority: Priority | None, labels: Mapping[str, str], now: datetime) -> Change:
    """Another priority, other labels."""
    spec = record.job.spec
    merged = {name: value for name, value in {**spec.labels, **labels}.items() if value}
    changed = replace(spec, priority=priority or spec.priority, labels=merged)
    if changed == spec:  # also where it has started since: the answer to an earlier call may have been lost
        return Change(record=record)
    if record.job.state is not State.QUEUED:
        raise FailedPreconditionError(f"{record.job.id} is {record.job.state.name}; only a QUEUED job can be changed")
    line = LogLine(text=f"updated: priority {changed.priority.name}, labels {merged}", time=now)
    amended = Change(record=replace(record, job=replace(record.job, spec=changed)), amended=True)
    return _noted(amended, [LogBatch(lines=(line,))], now)


def dispatched(record: Record, node: str, slots: tuple[int, ...], elsewhere: Sequence[Member], now: datetime) -> Change:
    """A new attempt with a new fence, STARTING on the slots."""
    job, number = record.job, record.job.attempt + 1
    attempt = Attempt(number=number, node=node, slot=slots[0], slots=slots, others=tuple(elsewhere), start_time=now)
    for member in attempt.members:
        if len(set(member.slots)) < len(member.slots):
            raise ValueError(f"{job.id} cannot hold a slot twice: {member.slots}")
    if len({member.node for member in attempt.members}) < len(attempt.members):
        raise ValueError(f"{job.id} cannot have a machine twice: {attempt.members}")
    if job.retry_time is not None and now < job.retry_time:
        raise FailedPreconditionError(f"{job.id} is to wait until {job.retry_time:%H:%M:%S} UTC", reason="NOT_YET")
    job = replace(job, attempt=number, attempts=(*job.attempts, attempt))
    begun = replace(record, job=job, fence=record.fence + 1, wish=Wish.CONTINUE, batch=0, starter="", rendezvous="")
    places = "; ".join(f"{member.node}, {slots_in_words(member.slots)}" for member in attempt.members)
    return _moved(Change(record=begun), State.STARTING, now, reason=f"starting on {places}")


def preempted(record: Record, assignment: Assignment, reason: str, now: datetime) -> Change:
    """Asked to save its work and give the job back, unless it is asked to stop anyway."""
    _check_fence(record, assignment)
    if record.wish is not Wish.CONTINUE:
        return Change(record=record)
    line = LogLine(text=f"preempted: {reason}", time=now)
    return _noted(Change(record=_asked_to_stop(record, Wish.PREEMPT, now)), [LogBatch(lines=(line,))], now)


def recovered(
    record: Record,
    assignment: Assignment,
    outcome: str,
    cause: Cause,
    lines: Sequence[LogLine],
    faulty: str,
    now: datetime,
) -> Change:
    """The attempt is closed; the job is where it was to go anyway, back in the queue, or FAILED."""
    _check_fence(record, assignment)
    wanted = {State.CANCELLING: State.CANCELLED, State.PAUSING: State.PAUSED}.get(record.job.state)
    change = Change(record=record, faulty=faulty)
    if lines:
        change = _noted(change, list(log_batches(lines)), now)
    as_wanted = wanted is not None and cause is Cause.PREEMPTED
    ended = replace(change, record=_attempt_ended(change.record, outcome, now, None if as_wanted else cause))
    if wanted is not None:
        return _moved(ended, wanted, now, reason=outcome)
    recovering = _moved(ended, State.RECOVERING, now, reason=outcome)
    attempts = recovering.record.job.attempts
    if (error := retries.verdict(attempts)) is not None:
        return _moved(recovering, State.FAILED, now, reason=error.message, error=error)
    queued = _moved(recovering, State.QUEUED, now, reason=outcome)
    if not (pause := retries.pause(attempts)):
        return queued
    job = replace(queued.record.job, retry_time=now + timedelta(seconds=pause))
    return replace(queued, record=replace(queued.record, job=job))


def begun(
    record: Record, assignment: Assignment, starter: str, resumed_from_step: int, rendezvous: str, now: datetime
) -> Change:
    """RUNNING, for the one process that shows `starter`.

    A job that was cancelled or paused before its attempt came stays so; its attempt begins, learns it and ends.
    """
    _check_fence(record, assignment)
    if record.starter == starter:
        return Change(record=record)
    if record.starter:
        raise StaleFenceError(f"attempt {assignment.attempt} of {assignment.job_id} was begun by another process")
    attempt = replace(record.job.attempts[-1], resumed_from_step=resumed_from_step)
    job = replace(record.job, attempts=(*record.job.attempts[:-1], attempt))
    found = replace(record, job=job, starter=starter, rendezvous=rendezvous)
    if job.state in (State.CANCELLING, State.PAUSING):
        return Change(record=found)
    found = replace(found, job=replace(job, start_time=job.start_time or now))
    return _moved(Change(record=found), State.RUNNING, now)


def met(record: Record, assignment: Assignment) -> str:
    """Where the attempt's first machine is found."""
    _check_fence(record, assignment)
    return record.rendezvous


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
    payloads = [payload for payload in payloads if payload != LogBatch(lines=())]
    progress = [payload for payload in payloads if isinstance(payload, Progress)]
    job = replace(record.job, progress=progress[-1]) if progress else record.job
    return _noted(Change(record=replace(record, job=job, batch=batch)), payloads, now)


def checkpoint_committed(record: Record, assignment: Assignment, checkpoint: Checkpoint, now: datetime) -> Change:
    """A checkpoint on the list, with its event. The store refuses an id that is registered."""
    _check_fence(record, assignment)
    *earlier, attempt = record.job.attempts
    attempt = replace(attempt, checkpoint_id=checkpoint.id, checkpoint_step=checkpoint.step)
    marked = replace(record, job=replace(record.job, attempts=(*earlier, attempt)))
    if checkpoint.best:
        marked = replace(marked, best=checkpoint.id)
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
    cause = error.cause if error else None
    ended = replace(_attempt_ended(record, reason or state.name.lower(), now, cause), ended_by=assignment.fence)
    return _moved(Change(record=ended), state, now, reason=reason, error=error)


def _check_fence(record: Record, assignment: Assignment) -> None:
    if not record.places or record.assignment != assignment:
        raise StaleFenceError(
            f"attempt {assignment.attempt} of {assignment.job_id} (fence {assignment.fence}) no longer holds the job, "
            f"which is {record.job.state.name} with fence {record.fence}; leave without writing anything"
        )


def _asked_to_stop(record: Record, wish: Wish, now: datetime) -> Record:
    # Asked again, for another reason, it has no more time than it had.
    job = replace(record.job, stop_time=record.job.stop_time or now)
    return replace(record, job=job, wish=wish)


def _attempt_ended(record: Record, outcome: str, now: datetime, cause: Cause | None = None) -> Record:
    """Nobody holds the present fence any more."""
    attempt = replace(record.job.attempts[-1], end_time=now, outcome=outcome, cause=cause)
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
        stop_time=job.stop_time if state in HOLDING_A_SLOT else None,
        retry_time=None,
    )
    return _noted(replace(change, record=replace(change.record, job=job)), [event], now)


def _noted(change: Change, payloads: Sequence[Payload], now: datetime) -> Change:
    """More events, and the job's sequence raised by as many."""
    job = change.record.job
    events = tuple(JobEvent(payload=payload, job_id=job.id, attempt=job.attempt, time=now) for payload in payloads)
    job = replace(job, sequence=job.sequence + len(events))
    return replace(change, record=replace(change.record, job=job), events=change.events + events)
