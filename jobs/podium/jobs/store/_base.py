"""What every ledger can do. One conformance suite (tests/contract/test_job_store.py) holds the implementations to it.

The ledger is the truth; queues and processes are hints. All methods block; an event loop calls them in a thread.

Three rules hold everywhere:

* A move between states obeys `podium.jobs.states.MOVES`, is atomic, and appends exactly one StateChange event.
* Whoever writes for an attempt shows the fence that the dispatch gave it. A fence that is no longer the job's raises
  StaleFenceError and changes nothing.
* A write that is repeated (a lost answer, an automatic retry) has the effect of one.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from podium.jobs.events import LogBatch, MetricBatch
from podium.jobs.job import Checkpoint, Job, JobError, Node, Progress
from podium.jobs.spec import JobSpec
from podium.jobs.states import State


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What creation writes; the spec is resolved already."""

    project: str
    spec: JobSpec
    classes: tuple[str, ...]
    request_id: str = ""
    asked: str = ""
    """The digest of the spec as it was asked for, before defaults that depend on the data; empty: of `spec`."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The right to run one attempt. It travels through the queue as JSON, ids and numbers only."""

    job_id: str
    attempt: int
    fence: int


class Wish(Enum):
    """What the attempt is asked to do next."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    PAUSE = "pause"


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event as bytes of podium.api.v1.JobEvent without its sequence number, which stands beside it."""

    sequence: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class EventPage:
    """Events in order, and what is kept of the job's history."""

    events: tuple[StoredEvent, ...]
    oldest_sequence: int
    """The first sequence that is still kept; 1 as long as nothing was trimmed."""
    last_sequence: int


class Bell(Protocol):
    """Rings when a job has a new event. A hint: after an outage it may have missed some, so look at times yourself."""

    def wait(self, timeout: float) -> frozenset[str]:
        """The ids of jobs that rang since the last call: at once when any did, empty after `timeout` seconds.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """


class JobStore(Protocol):
    """The ledger. Every method may raise UnavailableError when the ledger cannot be reached."""

    # Jobs

    def create(self, new: NewJob) -> tuple[Job, bool]:
        """Writes a job in QUEUED with event 1 and its place in the queue, in one step; True when it is new.

        The same (project, request_id) with the same spec returns the first job and False, for at least 7 days.

        Raises:
            AlreadyExistsError: the request_id was used with another spec.
        """

    def replayed(self, project: str, request_id: str, asked: str) -> Job | None:
        """The job that a request_id created; None: it was not used, or more than 7 days ago.

        Raises:
            AlreadyExistsError: it was used with another `NewJob.asked`.
        """

    def get(self, job_id: str) -> Job:
        """The job as it stands, `queue.position` filled in while QUEUED.

        Raises:
            NotFoundError: no such job (reason JOB_NOT_FOUND).
        """

    def list(
        self, *, project: str, states: frozenset[State] = frozenset(), before: str = "", limit: int = 50
    ) -> tuple[list[Job], str]:
        """A page of jobs, newest first, and the cursor of the next one, empty at the end.

        Args:
            project: the project.
            states: only these; empty means all.
            before: the cursor of the page before; empty for the first page.
            limit: jobs a page, at least 1.

        Raises:
            OutOfRangeError: `before` is not a cursor of this store.
        """

    def cancel(self, job_id: str, reason: str) -> Job:
        """QUEUED becomes CANCELLED; what holds a slot becomes CANCELLING, and its attempt is told.

        Repeating it changes nothing.

        Raises:
            NotFoundError: no such job.
            FailedPreconditionError: it SUCCEEDED or FAILED.
        """

    # The dispatcher and the reconciler

    def pending(self, pool: str) -> Sequence[str]:
        """The ids of QUEUED jobs, next one first: by priority, then creation. A job that comes back keeps its place."""

    def dispatch(self, job_id: str, node: str, slot: int, *others: int) -> Assignment:
        """QUEUED -> STARTING: takes the slots, raises attempt and fence, opens the lease; all or nothing.

        Args:
            job_id: the job.
            node: the machine.
            slot: the slot whose supervisor runs the attempt.
            others: more slots of the same machine, for a job that needs several; each is taken once.

        Raises:
            FailedPreconditionError: the job is not QUEUED, or one of the slots is not free (reason SLOT_TAKEN).
        """

    def holding(self) -> Sequence[tuple[Job, Assignment, bool]]:
        """The jobs that hold slots, each with its assignment and whether its lease still lives."""

    def recover(self, assignment: Assignment, outcome: str) -> Job:
        """Ends a lost attempt and frees its slots: RECOVERING, then QUEUED again; a CANCELLING job becomes CANCELLED.

        The fence rises, so that the lost attempt, should it live, can write nothing more.

        Args:
            assignment: the attempt that was lost.
            outcome: how, in words, for the attempt's record and the events.

        Raises:
            StaleFenceError: that attempt no longer holds the job.
        """

    def lead(self, owner: str, seconds: float) -> bool:
        """Takes or renews the one leadership among servers; False while another owner's has not run out."""

    def resign(self, owner: str) -> None:
        """Gives the leadership up, if `owner` holds it."""

    # The attempt

    def begin(self, assignment: Assignment, *, resumed_from_step: int = 0) -> Job:
        """STARTING -> RUNNING, by exactly one process: the second one to ask, and any stale one, is refused.

        A job that was cancelled meanwhile is returned as CANCELLING: `renew` tells the attempt to finish it.

        Raises:
            StaleFenceError: another process or a newer attempt has it.
        """

    def renew(self, assignment: Assignment) -> Wish:
        """Keeps the lease alive and returns what is asked of the attempt.

        Raises:
            StaleFenceError: a newer attempt holds the job, or it has ended.
        """

    def append(self, assignment: Assignment, batch: int, payloads: Sequence[MetricBatch | LogBatch | Progress]) -> int:
        """Appends events in order and returns the job's last sequence.

        Args:
            assignment: who writes.
            batch: a number that the attempt raises with every call, from 1; a batch that was written already is not
                written again.
            payloads: a Progress also becomes the job's present one; a MetricBatch is also kept for `metrics`.

        Raises:
            StaleFenceError: a newer attempt holds the job, or it has ended.
        """

    def commit_checkpoint(self, assignment: Assignment, checkpoint: Checkpoint) -> None:
        """Registers a checkpoint whose bytes are committed, and appends its event.

        An id that is registered already changes nothing. With `best` the mark is taken from the one that had it.

        Raises:
            StaleFenceError: a newer attempt holds the job, or it has ended.
        """

    def forget_checkpoint(self, assignment: Assignment, checkpoint_id: str) -> None:
        """Takes a checkpoint off the list, before its bytes are deleted; an unknown id changes nothing.

        Raises:
            StaleFenceError: a newer attempt holds the job, or it has ended.
        """

    def finish(self, assignment: Assignment, state: State, *, reason: str, error: JobError | None = None) -> Job:
        """The attempt ends the job as SUCCEEDED, FAILED or CANCELLED, and frees its slots.

        Repeating it after it has succeeded returns the job.

        Raises:
            StaleFenceError: a newer attempt holds the job, or it has ended otherwise.
        """

    # Readers

    def events(self, job_id: str, *, after: int, limit: int = 1000) -> EventPage:
        """Events with a sequence above `after`, in order, at most `limit`.

        Raises:
            NotFoundError: no such job.
            OutOfRangeError: events after `after` were trimmed (metadata oldest_sequence), or `after` is in the future.
        """

    def bell(self) -> AbstractContextManager[Bell]:
        """Listens for new events of all jobs, from now on."""

    def metrics(self, job_id: str) -> Iterator[tuple[int, MetricBatch]]:
        """(attempt, points), in the order they were written, all of them, a page at a time.

        Raises:
            NotFoundError: no such job.
        """

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """The committed checkpoints, by step.

        Raises:
            NotFoundError: no such job.
        """

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """One checkpoint.

        Raises:
            NotFoundError: no such checkpoint (reason CHECKPOINT_NOT_FOUND).
        """

    # Machines

    def heartbeat(self, node: Node) -> None:
        """Writes the machine's record and keeps its lease alive.

        The slots' job_id and the heartbeat_time are the ledger's to know, not the caller's.
        """

    def nodes(self) -> Sequence[Node]:
        """Every machine heard from within a day, by id, LOST where its lease is over, with the jobs in its slots."""

    def remove_node(self, node_id: str) -> None:
        """Takes a machine off the list, for one that leaves in good order."""


@dataclass(frozen=True, kw_only=True)
class Leases:
    """How long silence means nothing, in seconds."""

    attempt: float = 30.0
    """An attempt's lease; it renews at a third of this."""
    starting: float = 60.0
    """From dispatch to the first sign of the attempt."""
    node: float = 15.0
    """A machine's lease; it renews at a third of this."""


__all__ = [
    "Assignment",
    "Bell",
    "EventPage",
    "JobStore",
    "Leases",
    "NewJob",
    "StoredEvent",
    "Wish",
]
