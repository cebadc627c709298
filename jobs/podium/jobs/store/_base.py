"""What every ledger can do. One conformance suite (tests/contract/test_job_store*.py) holds them all to it.

The ledger is the truth; queues and processes are hints. All methods block; an event loop calls them in a thread.

Three rules hold everywhere:

* A move between states obeys `podium.jobs.states.MOVES`, is atomic, and appends exactly one StateChange event.
* Whoever writes for an attempt shows the fence that the dispatch gave it. A fence that is no longer the job's raises
  StaleFenceError and changes nothing.
* A write that is repeated (a lost answer, an automatic retry) has the effect of one.

Above 400 lines, as it is one specification, nearly all of it words.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.job import Cause, Checkpoint, Job, JobError, Member, Node, Progress
from podium.jobs.notices import Notice
from podium.jobs.spec import Priority
from podium.jobs.states import State
from podium.jobs.store._terms import (
    Assignment,
    Bookmark,
    Census,
    Deletion,
    Drain,
    EventPage,
    JobPage,
    LogPage,
    NewJob,
    StoredEvent,
    Submitted,
    Usage,
    Wanted,
    Wish,
)


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
            NotFoundError: the request_id's job has been deleted (reason JOB_NOT_FOUND), or the checkpoint that the spec
                starts from is not there (reason CHECKPOINT_NOT_FOUND).
        """

    def submit(self, new: NewJob) -> Submitted:
        """As `create`, for who only passes the job on.

        Raises:
            AlreadyExistsError: as `create`.
            NotFoundError: as `create`.
        """

    def replayed(self, project: str, request_id: str, asked: str) -> Job | None:
        """The job that a request_id created; None: it was not used, or more than 7 days ago.

        Raises:
            AlreadyExistsError: it was used with another `NewJob.asked`.
            NotFoundError: the job has been deleted (reason JOB_NOT_FOUND).
        """

    def get(self, job_id: str) -> Job:
        """The job as it stands, `queue.position` filled in while QUEUED.

        Raises:
            NotFoundError: no such job (reason JOB_NOT_FOUND).
        """

    def serialized(self, job_id: str) -> tuple[State, bytes]:
        """As `get`, for who only passes the job on: its state and its message, without what it waits for.

        What a newer version wrote is in it too, and it costs far less.

        Raises:
            NotFoundError: no such job (reason JOB_NOT_FOUND).
        """

    def place(self, job_id: str, pool: str) -> int | None:
        """From 1, the place of a job in the line of a pool; None: it is not there."""

    def list(
        self,
        *,
        project: str,
        states: frozenset[State] = frozenset(),
        wanted: Wanted | None = None,
        oldest_first: bool = False,
        cursor: str = "",
        limit: int = 50,
    ) -> JobPage:
        """A page of jobs by the time of their creation, and the cursor of the next one, empty at the end.

        It may have fewer jobs than `limit`, or none, and a cursor all the same: a call looks at so many jobs only.

        Args:
            project: the project.
            states: only these; empty means all.
            wanted: only jobs of which it is true; asked of those in `states`.
            oldest_first: the other way round than newest first.
            cursor: that of the page before, asked in the same order; empty for the first page.
            limit: jobs a page, at least 1.

        Raises:
            OutOfRangeError: `cursor` is not one of this store.
        """

    def cancel(self, job_id: str, reason: str, *, force: bool = False) -> Job:
        """QUEUED and PAUSED become CANCELLED; what holds a slot becomes CANCELLING, and its attempt is told.

        Repeating it changes nothing.

        Args:
            job_id: the job.
            reason: for the record.
            force: CANCELLED at once in any case; the attempt is fenced out.

        Raises:
            NotFoundError: no such job.
            FailedPreconditionError: it SUCCEEDED or FAILED.
        """

    def pause(self, job_id: str, reason: str) -> Job:
        """QUEUED becomes PAUSED; what holds a slot becomes PAUSING, and its attempt is told.

        Repeating it changes nothing.

        Raises:
            NotFoundError: no such job.
            FailedPreconditionError: it ended, or is being cancelled.
        """

    def resume(self, job_id: str) -> Job:
        """PAUSED becomes QUEUED, in its old place in line. A job that is neither paused nor pausing stays as it is.

        Raises:
            NotFoundError: no such job.
            FailedPreconditionError: it ended, is being cancelled, or is still PAUSING.
        """

    def update(self, job_id: str, *, priority: Priority | None, labels: Mapping[str, str]) -> Job:
        """Changes the spec of a QUEUED job.

        Args:
            job_id: the job.
            priority: the new one; None leaves it.
            labels: to add or change, the others stay; one with an empty value is removed.

        Raises:
            NotFoundError: no such job.
            FailedPreconditionError: it is not QUEUED.
        """

    # The dispatcher and the reconciler

    def pending(self, pool: str) -> Sequence[str]:
        """The ids of QUEUED jobs: by priority, then creation. A job that comes back keeps its place."""

    def line(self, pool: str) -> Sequence[tuple[str, int]]:
        """As `pending`, each with a number that is another one after `update` has changed the job's priority."""

    def known(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Many jobs at once, without their place in line; ids that are not known are left out."""

    def owned(self, project: str, job_ids: Sequence[str]) -> frozenset[str]:
        """Those of the jobs that belong to a project. One of another project takes as long as one that is none."""

    def job_of(self, checkpoint_id: str) -> str:
        """The job that a checkpoint is of; empty: no such checkpoint."""

    def dispatch(self, job_id: str, node: str, slot: int, *others: int, elsewhere: Sequence[Member] = ()) -> Assignment:
        """QUEUED -> STARTING: takes the slots, raises attempt and fence, opens the lease; all or nothing.

        Args:
            job_id: the job.
            node: the machine.
            slot: the slot whose supervisor runs the attempt.
            others: more slots of the same machine, for a job that needs several; each is taken once.
            elsewhere: slots of other machines, for a job of several.

        Raises:
            FailedPreconditionError: the job is not QUEUED, is to wait until `Job.retry_time` (reason NOT_YET), or one
                of the slots is not free (reason SLOT_TAKEN).
        """

    def preempt(self, assignment: Assignment, reason: str) -> Job:
        """Asks an attempt to save its work and give the job back to the queue. Repeating it changes nothing.

        What is being cancelled or paused stops anyway, and is left at that.

        Args:
            assignment: the attempt.
            reason: in words, for the job's log.

        Raises:
            StaleFenceError: that attempt no longer holds the job.
        """

    def holding(self, job_ids: Sequence[str] | None = None) -> Sequence[tuple[Job, Assignment, bool]]:
        """The jobs that hold slots, each with its assignment and whether its lease still lives.

        Args:
            job_ids: only these, whether they hold slots or not; None: all.
        """

    def jobs_on(self, node_id: str) -> Sequence[str]:
        """The ids of the jobs that hold slots of a machine, each once."""

    def silent(self) -> Sequence[str]:
        """The ids of the jobs that hold slots and whose lease is over: far cheaper than `holding`."""

    def recover(
        self,
        assignment: Assignment,
        outcome: str,
        *,
        cause: Cause = Cause.NODE_LOST,
        lines: Sequence[LogLine] = (),
        faulty: str = "",
    ) -> Job:
        """Ends an attempt that did not end its job, and frees its slots.

        A CANCELLING job becomes CANCELLED, a PAUSING one PAUSED. Any other becomes RECOVERING, then QUEUED again, or
        FAILED where `podium.jobs.retries` says that it is not worth another attempt. The fence rises, so that the
        attempt, should it live, can write nothing more.

        Args:
            assignment: the attempt.
            outcome: how it ended, in words, for the attempt's record and the events.
            cause: why.
            lines: last words for the job's log.
            faulty: the machine whose hardware failed; at the second time within a day it is EXCLUDED.

        Raises:
            StaleFenceError: that attempt no longer holds the job.
        """

    def usage(self) -> Usage | None:
        """What was last written by `write_usage`; None: nothing yet."""

    def write_usage(self, usage: Usage) -> None:
        """Keeps the leader's account, for the next leader."""

    def lead(self, owner: str, seconds: float) -> bool:
        """Takes or renews the one leadership among servers; False while another owner's has not run out."""

    def resign(self, owner: str) -> None:
        """Gives the leadership up, if `owner` holds it."""

    # The attempt

    def begin(self, assignment: Assignment, *, resumed_from_step: int = 0, rendezvous: str = "") -> Job:
        """STARTING -> RUNNING, by exactly one process: the second one to ask, and any stale one, is refused.

        A job that is to stop already is returned as CANCELLING or PAUSING: `renew` tells the attempt.

        Args:
            assignment: who begins.
            resumed_from_step: where it goes on from.
            rendezvous: where the attempt's other machines find it, for `rendezvous`.

        Raises:
            StaleFenceError: another process or a newer attempt has it.
        """

    def rendezvous(self, assignment: Assignment) -> str:
        """What the attempt's first machine said in `begin`; empty until then.

        Raises:
            StaleFenceError: a newer attempt holds the job, or it has ended.
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
            OutOfRangeError: events after `after` were trimmed (metadata oldest_sequence), or `after` is in the future;
                or they are in the archive, which this process gave the ledger none of.
            DataLossError: they are in the archive, and missing or damaged there.
        """

    def news(self, after: Mapping[str, int], *, limit: int) -> Mapping[str, Sequence[StoredEvent]]:
        """What is new of many jobs, in one step; jobs of which nothing is are left out.

        Args:
            after: of each job the last sequence that is known.
            limit: events of each job, at most.

        Returns:
            By job, the events after its sequence, in order. Nothing where they are not to be had in this way, as they
            were trimmed or are in the archive, or there is no such job: `events` says which.
        """

    def bell(self) -> AbstractContextManager[Bell]:
        """Listens for new events of all jobs, from now on."""

    def metrics(self, job_id: str) -> Iterator[tuple[int, MetricBatch]]:
        """(attempt, points), in the order they were written, all of them, a page at a time.

        Raises:
            NotFoundError: no such job.
            OutOfRangeError: they are in the archive, which this process gave the ledger none of.
            DataLossError: they are in the archive, and missing or damaged there.
        """

    def log(self, job_id: str, *, offset: int | None = None, limit: int = 200) -> LogPage:
        """A page of the log: the rows from the one on that has the line `offset`, in order, at most `limit`.

        Args:
            job_id: the job.
            offset: lines of the job's log to leave out; None: those that are no longer kept.
            limit: rows, each of a few hundred lines at most.

        Raises:
            NotFoundError: no such job.
            OutOfRangeError: lines from `offset` on are not kept (metadata oldest_offset), or it is in the future; or
                they are in the archive, which this process gave the ledger none of.
            DataLossError: they are in the archive, and missing or damaged there.
        """

    def point_rows(self, job_id: str) -> Iterator[Sequence[bytes]]:
        """The events of `metrics` as bytes, in the order they were written, a page at a time: for reading very many.

        Each is a JobEvent of the contract with its metrics, whatever else; others may stand in between.

        Raises:
            NotFoundError: no such job.
            OutOfRangeError: they are in the archive, which this process gave the ledger none of.
            DataLossError: they are in the archive, and missing or damaged there.
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

    # The history of ended jobs

    def ended(self, *, before: datetime, limit: int) -> Sequence[str]:
        """The ids of jobs that ended before a time and whose history the ledger itself still holds, longest ago first.

        Args:
            before: the time, aware.
            limit: at most so many.
        """

    def archive(self, job_id: str) -> None:
        """Moves the history of an ended job into the archive; `events` and `metrics` then read it from there.

        They find all that they would have found. Repeating it, or doing it twice at once, has the effect of one.

        Raises:
            NotFoundError: no such job, or it was deleted meanwhile.
            FailedPreconditionError: it has not ended.
            ValueError: this process gave the ledger no archive.
            OSError: the archive refused; nothing has changed.
        """

    # Deleting

    def delete(self, job_id: str) -> None:
        """Takes an ended job away: from now on there is no such job, and its deletion is on the list.

        Its request_id stays used. A job that has not ended protects the checkpoint that it starts from.

        Raises:
            NotFoundError: no such job, or it was deleted before.
            FailedPreconditionError: it has not ended; or another one starts from one of its checkpoints (reason IN_USE,
                metadata job_id).
        """

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Takes a checkpoint of an ended job off the list, and puts its deletion on that of deletions.

        Raises:
            NotFoundError: no such checkpoint, or it was deleted before.
            FailedPreconditionError: its job has not ended; or another one starts from it (reason IN_USE, metadata
                job_id).
        """

    def deletions(self) -> Sequence[Deletion]:
        """What was deleted and is not concluded, longest ago first."""

    def conclude(self, deletion: Deletion) -> None:
        """Takes a deletion off the list, as nothing is left of its bytes. Repeating it changes nothing."""

    # What the world outside is told

    def notices(self, *, after: str, limit: int) -> Sequence[tuple[str, Notice]]:
        """Ends of jobs and stalls of attempts, in order, each with its place; written in one step with the change.

        The last 10,000 are kept, or somewhat more.

        Args:
            after: a place; empty: from the oldest one that is kept.
            limit: at most so many.
        """

    def notices_at(self, places: Collection[str]) -> Sequence[tuple[str, Notice]]:
        """Those at some places, in order, as far as they are still kept."""

    def last_notice(self) -> str:
        """The place of the newest notice; empty: there is none."""

    def bookmark(self, reader: str) -> Bookmark | None:
        """What a reader last wrote with `write_bookmark`; None: nothing yet."""

    def write_bookmark(self, reader: str, bookmark: Bookmark) -> None:
        """Keeps how far a reader is, for the next process that reads for it."""

    # Machines

    def heartbeat(self, node: Node) -> Drain:
        """Writes the machine's record, keeps its lease alive, and returns what is asked of it.

        The slots' job_id and the heartbeat_time are the ledger's to know, not the caller's.
        """

    def nodes(self) -> Sequence[Node]:
        """Every machine heard from within a day, by id, with the jobs in its slots.

        LOST where its lease is over; else EXCLUDED after two hardware failures within a day, until `drain` forgets
        them; else DRAINING where `drain` asks for it, or the machine says so itself.
        """

    def drain(self, node_id: str, drain: Drain) -> Node:
        """Asks a machine to take no new jobs; Drain.NO takes that back, and forgets hardware failures.

        Raises:
            NotFoundError: no such machine (reason NODE_NOT_FOUND).
        """

    def remove_node(self, node_id: str) -> None:
        """Takes a machine off the list, for one that leaves in good order. What was asked of it is forgotten."""

    # What an operator sees

    def ping(self) -> None:
        """Asks for an answer, and nothing else."""

    def doubts(self) -> Sequence[str]:
        """How the ledger is set up so that it may lose what was accepted, with the remedy; empty: it is not.

        Raises:
            UnavailableError: it cannot be reached, or does not tell us.
        """

    def census(self) -> Census:
        """How much there is of what. Counts of what has ended rise with the very write that ends it."""
