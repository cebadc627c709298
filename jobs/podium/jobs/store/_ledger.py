"""What is the same in every ledger: load, change, write unless overtaken.

Above 400 lines, as it has a method of a few lines for everything that the Protocol can write.
"""

import heapq
import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum

from podium.jobs import wire
from podium.jobs.errors import (
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    InternalError,
    NotFoundError,
    OutOfRangeError,
    StaleFenceError,
    UnavailableError,
)
from podium.jobs.events import JobEvent, LogBatch, LogLine, MetricBatch
from podium.jobs.job import (
    Cause,
    Checkpoint,
    Job,
    JobError,
    Member,
    Node,
    NodeState,
    Progress,
    QueueInfo,
    slots_in_words,
)
from podium.jobs.spec import Priority
from podium.jobs.states import State
from podium.jobs.store import _record
from podium.jobs.store._archive import Archive
from podium.jobs.store._birth import Birth, birth_of
from podium.jobs.store._log import check_lines_kept, logged
from podium.jobs.store._record import Change, Record
from podium.jobs.store._terms import Assignment, Drain, EventPage, Leases, LogPage, NewJob, StoredEvent, Submitted, Wish

#: A write is tried again as often as others get in between; each of those got something done.
TRIES = 100
#: Bytes of log that are kept of a job, unless said otherwise.
LOG_KEPT = 8 << 20
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)


def new_job_id() -> str:
    """An id of "job-" and 16 lower-case base32 characters: 80 random bits."""
    return "job-" + "".join([_BASE32[byte & 31] for byte in secrets.token_bytes(16)])


class Outcome(Enum):
    """What became of a write."""

    DONE = 1
    OVERTAKEN = 2
    """Somebody wrote since the record was loaded: load again."""
    REFUSED = 3
    """A slot or the checkpoint's id is taken."""
    FENCED = 4
    """The fence that was shown is not the job's."""
    ILLEGAL = 5
    """The table of moves does not allow it, or the job has ended. Never asked for, unless we are wrong."""


class Ledger(ABC):
    """The writing half of a JobStore, on top of `_load` and `_commit`."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime],
        leases: Leases,
        new_id: Callable[[], str],
        archive: Archive | None,
        log_kept: int,
    ) -> None:
        self._clock = clock
        self._leases = leases
        self._new_id = new_id
        self._archive = archive
        self._log_kept = log_kept

    @abstractmethod
    def _load(self, job_id: str) -> Record | None:
        """The record of a job; None: no such job."""

    @abstractmethod
    def _commit(
        self,
        before: Record,
        change: Change,
        *,
        shown: int | None = None,
    ) -> Outcome:
        """Writes a change in one step, unless the job's stamp is no longer that of `before`.

        Args:
            before: the record that was loaded.
            change: what to write.
            shown: the fence of the attempt that writes; None where none does.
        """

    @abstractmethod
    def _enter(self, birth: Birth) -> int | None:
        """Writes a new job in one step, with a number above every one that was given out, unless it is there already.

        Returns:
            Its place in line, from 1; 0 where it is in line no longer. None: its request_id was used, or the checkpoint
            that it starts from is gone, and nothing was written.
        """

    @abstractmethod
    def _request(self, project: str, request_id: str) -> tuple[str, str] | None:
        """The job and the spec's digest of a request_id; None: not used within the last 7 days."""

    @abstractmethod
    def place(self, job_id: str, pool: str) -> int | None:
        """See JobStore.place."""

    @abstractmethod
    def _page(self, job_id: str, after: int, limit: int) -> EventPage | str:
        """What `events` is to answer, before it is checked; the digest of the history where it is in the archive.

        Raises:
            NotFoundError: no such job.
        """

    @abstractmethod
    def _points(self, job_id: str) -> Iterator[StoredEvent]:
        """All events with metrics, in order: of each the attempt and the metrics, whatever else."""

    @abstractmethod
    def _point_rows(self, job_id: str) -> Iterator[Sequence[bytes]]:
        """The bytes of `_points`, and perhaps of other events in between, a page at a time."""

    @abstractmethod
    def _log_page(self, job_id: str, offset: int, limit: int) -> LogPage | str:
        """What `log` is to answer, before it is checked; the digest of the history where it is in the archive.

        Raises:
            NotFoundError: no such job.
        """

    @abstractmethod
    def _lines(self, job_id: str) -> Iterator[tuple[int, StoredEvent]]:
        """All events with lines, in order, each after the lines before it: attempt and log, whatever else."""

    @abstractmethod
    def _archived(self, job_id: str, digest: str) -> bool:
        """Notes that the history is in the archive, if that was not noted yet, and drops it here, in one step.

        False, and nothing happens: there is no such job any more.
        """

    @abstractmethod
    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """See JobStore.checkpoint."""

    def create(self, new: NewJob) -> tuple[Job, bool]:
        """See JobStore.create."""
        made = self.submit(new)
        if not made.place:
            return self.get(made.id), made.new
        return replace(wire.from_bytes(Job, made.message), queue=QueueInfo(position=made.place)), made.new

    def submit(self, new: NewJob) -> Submitted:
        """See JobStore.submit."""
        birth = birth_of(new, new.id or self._new_id(), self._clock())
        while (place := self._enter(birth)) is None:
            if earlier := self._request(birth.project, birth.request_id) if birth.request_id else None:
                job = self._replay(birth.request_id, birth.digest, earlier)
                message = wire.to_bytes(replace(job, queue=None))
                return Submitted(job.id, job.state, message, new=job.id == birth.job_id, place=None)
            if birth.starts_from:
                self.checkpoint(birth.starts_from)
        return Submitted(birth.job_id, State.QUEUED, birth.message, new=True, place=place or None)

    def replayed(self, project: str, request_id: str, asked: str) -> Job | None:
        """See JobStore.replayed."""
        earlier = self._request(project, request_id)
        return self._replay(request_id, asked, earlier) if earlier else None

    def _replay(self, request_id: str, digest: str, earlier: tuple[str, str]) -> Job:
        job_id, earlier_digest = earlier
        if earlier_digest != digest:
            raise AlreadyExistsError(
                f"the request_id {request_id!r} was used for {job_id} with another spec; make a new request_id",
                metadata={"job_id": job_id},
            )
        try:
            return self.get(job_id)
        except NotFoundError:
            raise NotFoundError(
                f"the request_id {request_id!r} was used for {job_id}, which has been deleted; make a new request_id",
                reason="JOB_NOT_FOUND",
                metadata={"job_id": job_id},
            ) from None

    def get(self, job_id: str) -> Job:
        """See JobStore.get."""
        return self._placed(self._known(job_id))

    def serialized(self, job_id: str) -> tuple[State, bytes]:
        """See JobStore.serialized."""
        job = self._known(job_id).job
        return job.state, wire.to_bytes(job)

    def cancel(self, job_id: str, reason: str, *, force: bool = False) -> Job:
        """See JobStore.cancel."""
        return self._asked(job_id, lambda record: _record.cancelled(record, reason, force, self._clock()))

    def pause(self, job_id: str, reason: str) -> Job:
        """See JobStore.pause."""
        return self._asked(job_id, lambda record: _record.paused(record, reason, self._clock()))

    def resume(self, job_id: str) -> Job:
        """See JobStore.resume."""
        return self._asked(job_id, lambda record: _record.resumed(record, self._clock()))

    def update(self, job_id: str, *, priority: Priority | None, labels: Mapping[str, str]) -> Job:
        """See JobStore.update."""
        return self._asked(job_id, lambda record: _record.updated(record, priority, labels, self._clock()))

    def _asked(self, job_id: str, change_of: Callable[[Record], Change]) -> Job:
        """What a user asks for, who may name a job that there is not."""
        self._known(job_id)
        return self._placed(_granted(self._write(job_id, change_of)))

    def dispatch(self, job_id: str, node: str, slot: int, *others: int, elsewhere: Sequence[Member] = ()) -> Assignment:
        """See JobStore.dispatch."""
        self._known(job_id)
        slots = (slot, *others)
        written = self._write(
            job_id,
            lambda record: replace(
                _record.dispatched(record, node, slots, elsewhere, self._clock()), lease=self._leases.starting
            ),
        )
        if written is None:
            places = (Member(node=node, slots=slots), *elsewhere)
            words = " or ".join(f"{slots_in_words(member.slots)} of {member.node}" for member in places)
            raise FailedPreconditionError(f"not free: {words}; choose others", reason="SLOT_TAKEN")
        return written.assignment

    def preempt(self, assignment: Assignment, reason: str) -> Job:
        """See JobStore.preempt."""
        return self._written(
            assignment, lambda record: _record.preempted(record, assignment, reason, self._clock())
        ).job

    def recover(
        self,
        assignment: Assignment,
        outcome: str,
        *,
        cause: Cause = Cause.NODE_LOST,
        lines: Sequence[LogLine] = (),
        faulty: str = "",
    ) -> Job:
        """See JobStore.recover."""
        return self._placed(
            self._written(
                assignment,
                lambda record: _record.recovered(record, assignment, outcome, cause, lines, faulty, self._clock()),
            )
        )

    def _begin(self, assignment: Assignment, starter: str, resumed_from_step: int, rendezvous: str) -> Job:
        """See JobStore.begin; `starter` is the asking process's own token."""
        return self._written(
            assignment,
            lambda record: replace(
                _record.begun(record, assignment, starter, resumed_from_step, rendezvous, self._clock()),
                lease=self._leases.attempt,
            ),
        ).job

    def rendezvous(self, assignment: Assignment) -> str:
        """See JobStore.rendezvous."""
        record = self._load(assignment.job_id)
        if record is None:
            raise StaleFenceError(f"the ledger knows no job {assignment.job_id}; leave without writing anything")
        return _record.met(record, assignment)

    def renew(self, assignment: Assignment) -> Wish:
        """See JobStore.renew."""
        return self._written(assignment, lambda record: _record.renewed(record, assignment, self._leases.attempt)).wish

    def append(self, assignment: Assignment, batch: int, payloads: Sequence[MetricBatch | LogBatch | Progress]) -> int:
        """See JobStore.append."""
        return self._written(
            assignment,
            lambda record: _record.appended(record, assignment, batch, payloads, self._clock()),
        ).job.sequence

    def commit_checkpoint(self, assignment: Assignment, checkpoint: Checkpoint) -> None:
        """See JobStore.commit_checkpoint. Refused means registered already: nothing to do."""
        self._write(
            assignment.job_id,
            lambda record: _record.checkpoint_committed(record, assignment, checkpoint, self._clock()),
            shown=assignment.fence,
        )

    def forget_checkpoint(self, assignment: Assignment, checkpoint_id: str) -> None:
        """See JobStore.forget_checkpoint."""
        self._written(assignment, lambda record: _record.checkpoint_forgotten(record, assignment, checkpoint_id))

    def finish(self, assignment: Assignment, state: State, *, reason: str, error: JobError | None = None) -> Job:
        """See JobStore.finish."""
        return self._written(
            assignment,
            lambda record: _record.finished(record, assignment, state, reason, error, self._clock()),
        ).job

    def events(self, job_id: str, *, after: int, limit: int = 1000) -> EventPage:
        """See JobStore.events."""
        page = self._page(job_id, after, limit)
        if isinstance(page, str):
            with self._shelf(job_id) as archive:
                page = archive.page(job_id, page, after=after, limit=limit)
        return check_kept(job_id, page, after)

    def metrics(self, job_id: str) -> Iterator[tuple[int, MetricBatch]]:
        """See JobStore.metrics."""
        self._known(job_id)
        events = (wire.from_bytes(JobEvent, row.data) for row in self._points(job_id))
        return ((event.attempt, event.payload) for event in events if isinstance(event.payload, MetricBatch))

    def log(self, job_id: str, *, offset: int | None = None, limit: int = 200) -> LogPage:
        """See JobStore.log."""
        page = self._log_page(job_id, offset or 0, limit)
        if isinstance(page, str):
            with self._shelf(job_id) as archive:
                page = archive.log(job_id, page, offset=offset or 0, limit=limit)
        return check_lines_kept(job_id, page, offset)

    def point_rows(self, job_id: str) -> Iterator[Sequence[bytes]]:
        """See JobStore.point_rows."""
        self._known(job_id)
        return self._point_rows(job_id)

    def archive(self, job_id: str) -> None:
        """See JobStore.archive."""
        job = self._known(job_id).job
        if not job.terminal:
            raise FailedPreconditionError(f"{job_id} is {job.state.name}; the history of ended jobs alone is archived")
        if self._archive is None:
            raise ValueError("this ledger was made without an archive; give it one")
        oldest = self.events(job_id, after=job.sequence).oldest_sequence
        digest = self._archive.write(
            job_id,
            oldest=oldest,
            last=job.sequence,
            rows=self._rows(job_id, oldest),
            oldest_offset=self.log(job_id, limit=1).oldest_offset,
        )
        if not self._archived(job_id, digest):
            # Deleted meanwhile. What was just written goes with its other bytes.
            raise no_such_job(job_id)
        if self._page(job_id, 0, 1) != digest:
            # Another leader was faster, and took from under this one what it had not read yet.
            self._archive.drop(job_id, digest)

    def _rows(self, job_id: str, oldest: int) -> Iterator[StoredEvent]:
        """The metrics and lines of events that are not kept any more, then the events: all that there is."""
        before = heapq.merge(self._points(job_id), (row for _, row in self._lines(job_id)), key=_sequence_of)
        yield from itertools.takewhile(lambda row: row.sequence < oldest, before)
        after = oldest - 1
        while page := self.events(job_id, after=after).events:
            yield from page
            after = page[-1].sequence

    @contextmanager
    def _shelf(self, job_id: str) -> Iterator[Archive]:
        """The archive, to read the history of a job in it."""
        if self._archive is None:
            raise OutOfRangeError(f"the history of {job_id} is in the archive; ask the server for it")
        try:
            yield self._archive
        except DataLossError:
            # Of a job that was deleted meanwhile nothing is lost: then this says that there is none.
            self._known(job_id)
            raise

    def _written(self, assignment: Assignment, change_of: Callable[[Record], Change]) -> Record:
        """What an attempt writes, or somebody about it."""
        return _granted(self._write(assignment.job_id, change_of, shown=assignment.fence))

    def _write(self, job_id: str, change_of: Callable[[Record], Change], *, shown: int | None = None) -> Record | None:
        """Loads, changes and writes until nobody gets in between; None where the write is refused."""
        stamp = secrets.token_hex(8)
        for _ in range(TRIES):
            before = self._load(job_id)
            if before is None and shown is None:  # deleted since its caller looked
                raise no_such_job(job_id)
            if before is None:
                raise StaleFenceError(f"the ledger knows no job {job_id}; leave without writing anything")
            if before.stamp == stamp:  # the answer to an earlier try was lost, its effect was not
                return before
            change = logged(change_of(before), self._log_kept)
            if change == Change(record=before):
                return before
            if change.record != before:
                change = replace(change, record=replace(change.record, stamp=stamp))
            outcome = self._commit(before, change, shown=shown)
            if outcome is Outcome.FENCED:
                raise StaleFenceError(f"fence {shown} is no longer that of {job_id}; leave without writing anything")
            if outcome is Outcome.ILLEGAL:
                path = " -> ".join(state.name for state in (before.job.state, *change.path))
                raise InternalError(f"{job_id}: the ledger does not allow {path}; nothing was written")
            if outcome is not Outcome.OVERTAKEN:
                return change.record if outcome is Outcome.DONE else None
        raise UnavailableError(f"{job_id} is being written by too many at once; try again")

    def _known(self, job_id: str) -> Record:
        record = self._load(job_id)
        if record is None:
            raise no_such_job(job_id)
        return record

    def _placed(self, record: Record) -> Job:
        """The job, with its position while QUEUED."""
        if record.job.state is not State.QUEUED:
            return record.job
        position = self.place(record.job.id, record.job.spec.resources.pool)
        return record.job if position is None else replace(record.job, queue=QueueInfo(position=position))


def _sequence_of(row: StoredEvent) -> int:
    return row.sequence


def _granted(record: Record | None) -> Record:
    if record is None:
        raise AssertionError("only dispatch and commit_checkpoint take something that may be taken")
    return record


def no_such_job(job_id: str) -> NotFoundError:
    """What to raise for an unknown job."""
    return NotFoundError(
        f"there is no job {job_id!r}; `podium ls` lists the jobs", reason="JOB_NOT_FOUND", metadata={"job_id": job_id}
    )


def no_such_node(node_id: str) -> NotFoundError:
    """What to raise for an unknown machine."""
    return NotFoundError(
        f"there is no machine {node_id!r}; `podium nodes` lists them",
        reason="NODE_NOT_FOUND",
        metadata={"node_id": node_id},
    )


def no_such_checkpoint(checkpoint_id: str) -> NotFoundError:
    """What to raise for an unknown checkpoint."""
    return NotFoundError(
        f"there is no checkpoint {checkpoint_id!r}; it may have been replaced by a newer one",
        reason="CHECKPOINT_NOT_FOUND",
        metadata={"checkpoint_id": checkpoint_id},
    )


#: A machine whose hardware fails twice within so many seconds gets nothing more, until somebody has seen to it.
_TOO_SOON = 86_400


def node_state(node: Node, *, lost: bool, drain: Drain, failures: Sequence[float]) -> Node:
    """The machine with its state, and why it takes no jobs.

    Args:
        node: as it says itself.
        lost: whether its lease is over.
        drain: what is asked of it.
        failures: when attempts failed for its hardware since it was trusted last, in seconds, ascending.
    """
    if lost:
        return replace(node, state=NodeState.LOST, reason="not heard from for longer than its lease")
    if any(later - earlier <= _TOO_SOON for earlier, later in itertools.pairwise(failures)):
        reason = f"{len(failures)} attempts failed for its hardware; see to it, then `podium undrain {node.id}`"
        return replace(node, state=NodeState.EXCLUDED, reason=reason)
    if drain is not Drain.NO:
        return replace(node, state=NodeState.DRAINING, reason="drained by request")
    return node


def check_kept(job_id: str, page: EventPage, after: int) -> EventPage:
    """The page, if nothing is missing between `after` and its first event.

    Raises:
        OutOfRangeError: something is, or `after` lies in the future.
    """
    if page.oldest_sequence - 1 <= after <= page.last_sequence:
        return page
    raise OutOfRangeError(
        f"{job_id}: events after {after} are not there: kept are {page.oldest_sequence} to {page.last_sequence}; "
        f"watch again from {page.oldest_sequence - 1}",
        metadata={
            "job_id": job_id,
            "oldest_sequence": str(page.oldest_sequence),
            "last_sequence": str(page.last_sequence),
        },
    )


def parse_cursor(cursor: str) -> int | None:
    """The number beyond which a page of jobs begins; None for the first page.

    Raises:
        OutOfRangeError: it is no cursor.
    """
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 15):
        raise OutOfRangeError(f"{cursor[:40]!r} is not a cursor of this list; start again without one")
    return int(cursor)


def by_step(checkpoints: Sequence[Checkpoint], best: str) -> Sequence[Checkpoint]:
    """The checkpoints by step, of one step the one written last at the end; the one mark where it belongs."""
    marked = (replace(checkpoint, best=checkpoint.id == best) for checkpoint in checkpoints)
    return sorted(marked, key=lambda one: (one.step, one.attempt, one.create_time or _LONG_AGO, one.id))
