"""The ledger in the memory of one process: for tests, and for reading what a ledger does.

Above 400 lines, as it is the whole of a ledger; that in Redis has a file for each of its parts.
"""

import itertools
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from podium.jobs import wire
from podium.jobs.events import JobEvent, LogBatch, MetricBatch
from podium.jobs.job import Cause, Checkpoint, Job, Node, Slot
from podium.jobs.notices import Notice
from podium.jobs.states import State
from podium.jobs.store._archive import Archive
from podium.jobs.store._base import Bell
from podium.jobs.store._birth import Birth
from podium.jobs.store._deleting import Deleting, Removal
from podium.jobs.store._ledger import (
    LOG_KEPT,
    Outcome,
    by_step,
    new_job_id,
    no_such_checkpoint,
    no_such_job,
    no_such_node,
    node_state,
    parse_cursor,
    utc_now,
)
from podium.jobs.store._log import a_page
from podium.jobs.store._notices import notices_of
from podium.jobs.store._record import Change, Record
from podium.jobs.store._terms import (
    Assignment,
    Bookmark,
    Census,
    Deletion,
    Drain,
    EventPage,
    JobPage,
    Leases,
    LogPage,
    StoredEvent,
    Usage,
    Wanted,
)

_REQUESTS_KEPT = timedelta(days=7)
_NODES_KEPT = timedelta(days=1)
#: Rows of points a page.
_POINT_ROWS = 100


@dataclass(kw_only=True)
class _Entry:
    """A job and its history."""

    record: Record
    events: list[StoredEvent] = field(default_factory=list)
    points: list[StoredEvent] = field(default_factory=list)
    log: list[tuple[int, StoredEvent]] = field(default_factory=list)
    """Each with the lines before it."""
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    lease_until: datetime | None = None
    archive: str = ""
    """The digest of the history, once it is in the archive."""


class MemoryStore(Deleting):
    """A JobStore that forgets everything with its process. Threads may share it.

    Args:
        clock: the time, aware; leases run out by it.
        leases: how long silence means nothing.
        events_kept: events a job, at most; older ones are trimmed.
        log_kept: bytes of log a job, at most; older lines are trimmed, and the events before them.
        new_id: makes job ids.
        archive: where the history of ended jobs goes.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = utc_now,
        leases: Leases = Leases(),  # noqa: B008  # frozen
        events_kept: int = 20_000,
        log_kept: int = LOG_KEPT,
        new_id: Callable[[], str] = new_job_id,
        archive: Archive | None = None,
    ) -> None:
        super().__init__(clock=clock, leases=leases, new_id=new_id, archive=archive, log_kept=log_kept)
        self._events_kept = events_kept
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._entries: dict[str, _Entry] = {}
        self._requests: dict[tuple[str, str], tuple[str, str, datetime]] = {}
        self._slots: dict[tuple[str, int], str] = {}
        self._nodes: dict[str, Node] = {}
        self._drains: dict[str, Drain] = {}
        self._failures: dict[str, list[float]] = {}
        self._tally: Counter[Cause | State | None] = Counter()
        self._usage: Usage | None = None
        self._notices: list[Notice] = []
        self._bookmarks: dict[str, Bookmark] = {}
        self._leader: tuple[str, datetime] | None = None
        self._bells: set[_MemoryBell] = set()
        self._deletions: list[Deletion] = []

    def _load(self, job_id: str) -> Record | None:
        with self._lock:
            entry = self._entries.get(job_id)
            return entry.record if entry else None

    def _request(self, project: str, request_id: str) -> tuple[str, str] | None:
        with self._lock:
            job_id, digest, until = self._requests.get((project, request_id), ("", "", self._clock()))
            return (job_id, digest) if until > self._clock() else None

    def place(self, job_id: str, pool: str) -> int | None:
        """See JobStore.place."""
        pending = self.pending(pool)
        return pending.index(job_id) + 1 if job_id in pending else None

    def _enter(self, birth: Birth) -> int | None:
        with self._lock:
            if new := birth.job_id not in self._entries:
                if birth.request_id and self._request(birth.project, birth.request_id):
                    return None
                if birth.starts_from and not self._holder(birth.starts_from):
                    return None
                event = StoredEvent(sequence=1, data=birth.event)
                self._entries[birth.job_id] = _Entry(record=birth.record(next(self._numbers)), events=[event])
                if birth.request_id:
                    until = self._clock() + _REQUESTS_KEPT
                    self._requests[birth.project, birth.request_id] = (birth.job_id, birth.digest, until)
            place = self.place(birth.job_id, birth.pool) or 0
        if new:
            self._ring(birth.job_id)
        return place

    def _commit(self, before: Record, change: Change, *, shown: int | None = None) -> Outcome:
        with self._lock:
            entry = self._entries.get(change.record.job.id)
            if entry is None or entry.record.stamp != before.stamp:
                return Outcome.OVERTAKEN
            if shown is not None and shown != entry.record.fence:
                return Outcome.FENCED
            if not change.follows(entry.record):
                return Outcome.ILLEGAL
            if self._refused(entry, change):
                return Outcome.REFUSED
            self._apply(entry, before, change)
        if change.events:
            self._ring(change.record.job.id)
        return Outcome.DONE

    def _ring(self, job_id: str) -> None:
        for bell in tuple(self._bells):
            bell.ring(job_id)

    def _refused(self, entry: _Entry, change: Change) -> bool:
        job_id, payloads = change.record.job.id, [event.payload for event in change.events]
        if any(self._slots.get(place, job_id) != job_id for place in change.record.places):
            return True
        return any(isinstance(payload, Checkpoint) and payload.id in entry.checkpoints for payload in payloads)

    def _apply(self, entry: _Entry, before: Record, change: Change) -> None:
        for place in before.places:
            self._slots.pop(place)
        entry.record = change.record
        self._tally.update(change.tally(before))
        self._slots.update(dict.fromkeys(change.record.places, change.record.job.id))
        if change.lease is not None:
            entry.lease_until = self._clock() + timedelta(seconds=change.lease)
        entry.checkpoints.pop(change.forgotten, None)
        if change.faulty:
            self._failures.setdefault(change.faulty, []).append(self._clock().timestamp())
        lines = change.lines_before
        for sequence, event in change.numbered:
            entry.events.append(StoredEvent(sequence=sequence, data=wire.to_bytes(event)))
            if isinstance(event.payload, MetricBatch):
                points = JobEvent(attempt=event.attempt, payload=event.payload)
                entry.points.append(StoredEvent(sequence=sequence, data=wire.to_bytes(points)))
            if isinstance(event.payload, LogBatch):
                row = wire.to_bytes(JobEvent(attempt=event.attempt, payload=event.payload))
                entry.log.append((lines, StoredEvent(sequence=sequence, data=row)))
                lines += len(event.payload.lines)
            if isinstance(event.payload, Checkpoint):
                entry.checkpoints[event.payload.id] = event.payload
        if first := change.first_kept(before):
            entry.log = [(lines, row) for lines, row in entry.log if row.sequence >= first]
            entry.events = [row for row in entry.events if row.sequence >= first]
        del entry.events[: -self._events_kept]
        self._notices += notices_of(change)

    def begin(self, assignment: Assignment, *, resumed_from_step: int = 0, rendezvous: str = "") -> Job:
        """See JobStore.begin. No answer is ever lost here, so whoever asks again is somebody else."""
        return self._begin(assignment, secrets.token_hex(8), resumed_from_step, rendezvous)

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
        """See JobStore.list."""
        start = parse_cursor(cursor)
        with self._lock:
            records = [
                entry.record
                for entry in self._entries.values()
                if entry.record.job.project == project
                and (not states or entry.record.job.state in states)
                and (start is None or (entry.record.number > start if oldest_first else entry.record.number < start))
                and (wanted is None or wanted(wire.to_proto(entry.record.job)))
            ]
            found = sorted(records, key=lambda record: record.number, reverse=not oldest_first)
            page = found[:limit]
            return [self._placed(record) for record in page], str(page[-1].number) if len(found) > limit else ""

    def pending(self, pool: str) -> Sequence[str]:
        """See JobStore.pending."""
        return [job_id for job_id, _ in self.line(pool)]

    def line(self, pool: str) -> Sequence[tuple[str, int]]:
        """See JobStore.line."""
        with self._lock:
            queued = [
                entry.record
                for entry in self._entries.values()
                if entry.record.job.state is State.QUEUED and entry.record.job.spec.resources.pool == pool
            ]
        return [(record.job.id, record.score) for record in sorted(queued, key=lambda record: record.score)]

    def known(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """See JobStore.known."""
        return [record.job for job_id in job_ids if (record := self._load(job_id))]

    def holding(self, job_ids: Sequence[str] | None = None) -> Sequence[tuple[Job, Assignment, bool]]:
        """See JobStore.holding."""
        now = self._clock()
        with self._lock:
            asked = self._entries if job_ids is None else set(job_ids) & self._entries.keys()
            entries = sorted((self._entries[job_id] for job_id in asked), key=lambda entry: entry.record.number)
            return [
                (entry.record.job, entry.record.assignment, entry.lease_until is not None and entry.lease_until > now)
                for entry in entries
                if entry.record.places
            ]

    def jobs_on(self, node_id: str) -> Sequence[str]:
        """See JobStore.jobs_on."""
        with self._lock:
            return sorted({job_id for (node, _), job_id in self._slots.items() if node == node_id})

    def silent(self) -> Sequence[str]:
        """See JobStore.silent."""
        return [job.id for job, _, alive in self.holding() if not alive]

    def usage(self) -> Usage | None:
        """See JobStore.usage."""
        return self._usage

    def write_usage(self, usage: Usage) -> None:
        """See JobStore.write_usage."""
        self._usage = usage

    def notices(self, *, after: str, limit: int) -> Sequence[tuple[str, Notice]]:
        """See JobStore.notices. Keeps all of them."""
        first = int(after or 0)
        return [(str(place), notice) for place, notice in enumerate(self._notices[first:][:limit], start=first + 1)]

    def notices_at(self, places: Collection[str]) -> Sequence[tuple[str, Notice]]:
        """See JobStore.notices_at."""
        return [(place, self._notices[int(place) - 1]) for place in sorted(places, key=int)]

    def last_notice(self) -> str:
        """See JobStore.last_notice."""
        return str(len(self._notices) or "")

    def bookmark(self, reader: str) -> Bookmark | None:
        """See JobStore.bookmark."""
        return self._bookmarks.get(reader)

    def write_bookmark(self, reader: str, bookmark: Bookmark) -> None:
        """See JobStore.write_bookmark."""
        self._bookmarks[reader] = bookmark

    def lead(self, owner: str, seconds: float) -> bool:
        """See JobStore.lead."""
        with self._lock:
            now = self._clock()
            if self._leader and self._leader[0] != owner and self._leader[1] > now:
                return False
            self._leader = (owner, now + timedelta(seconds=seconds))
            return True

    def resign(self, owner: str) -> None:
        """See JobStore.resign."""
        with self._lock:
            if self._leader and self._leader[0] == owner:
                self._leader = None

    def _page(self, job_id: str, after: int, limit: int) -> EventPage | str:
        with self._lock:
            entry = self._entry(job_id)
            return entry.archive or EventPage(
                events=tuple(event for event in entry.events if event.sequence > after)[:limit],
                oldest_sequence=entry.events[0].sequence,
                last_sequence=entry.record.job.sequence,
            )

    def _points(self, job_id: str) -> Iterator[StoredEvent]:
        with self._lock:
            entry = self._entry(job_id)
            digest, points = entry.archive, tuple(entry.points)
        if not digest:
            yield from points
            return
        with self._shelf(job_id) as archive:
            yield from archive.points(job_id, digest)

    def _point_rows(self, job_id: str) -> Iterator[Sequence[bytes]]:
        with self._lock:
            entry = self._entry(job_id)
            digest, rows = entry.archive, [row.data for row in entry.points]
        if not digest:
            yield from (rows[first : first + _POINT_ROWS] for first in range(0, len(rows), _POINT_ROWS))
            return
        with self._shelf(job_id) as archive:
            yield from archive.rows(job_id, digest)

    def _log_page(self, job_id: str, offset: int, limit: int) -> LogPage | str:
        with self._lock:
            entry = self._entry(job_id)
            if entry.archive:
                return entry.archive
            return a_page(entry.log, last_sequence=entry.record.job.sequence, offset=offset, limit=limit)

    def _lines(self, job_id: str) -> Iterator[tuple[int, StoredEvent]]:
        with self._lock:
            return iter(tuple(self._entry(job_id).log))

    def ended(self, *, before: datetime, limit: int) -> Sequence[str]:
        """See JobStore.ended."""
        with self._lock:
            jobs = [entry.record.job for entry in self._entries.values() if not entry.archive]
        ends = sorted((job.end_time, job.id) for job in jobs if job.end_time and job.end_time < before)
        return [job_id for _, job_id in ends][:limit]

    def _archived(self, job_id: str, digest: str) -> bool:
        with self._lock:
            entry = self._entries.get(job_id)
            if entry is None:
                return False
            entry.archive = entry.archive or digest
            entry.events, entry.points, entry.log = [], [], []
            return True

    def news(self, after: Mapping[str, int], *, limit: int) -> Mapping[str, Sequence[StoredEvent]]:
        """See JobStore.news."""
        with self._lock:
            found = {name: self._after(self._entries.get(name), place, limit) for name, place in after.items()}
        return {name: events for name, events in found.items() if events is not None}

    @staticmethod
    def _after(entry: _Entry | None, place: int, limit: int) -> Sequence[StoredEvent] | None:
        """As an entry of `news`; None: nothing is new."""
        if entry is None or entry.archive or entry.events[0].sequence > place + 1:
            return ()
        return tuple(event for event in entry.events if event.sequence > place)[:limit] or None

    @contextmanager
    def bell(self) -> Iterator[Bell]:
        """See JobStore.bell."""
        bell = _MemoryBell()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """See JobStore.checkpoints."""
        with self._lock:
            entry = self._entry(job_id)
            return by_step(tuple(entry.checkpoints.values()), entry.record.best)

    def owned(self, project: str, job_ids: Sequence[str]) -> frozenset[str]:
        """See JobStore.owned."""
        with self._lock:
            return frozenset(
                job_id
                for job_id in job_ids
                if job_id in self._entries and self._entries[job_id].record.job.project == project
            )

    def job_of(self, checkpoint_id: str) -> str:
        """See JobStore.job_of."""
        with self._lock:
            owners = (job_id for job_id, entry in self._entries.items() if checkpoint_id in entry.checkpoints)
            return next(owners, "")

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """See JobStore.checkpoint."""
        with self._lock:
            if (entry := self._holder(checkpoint_id)) is not None:
                return by_step((entry.checkpoints[checkpoint_id],), entry.record.best)[0]
        raise no_such_checkpoint(checkpoint_id)

    def _holder(self, checkpoint_id: str) -> _Entry | None:
        return next((entry for entry in self._entries.values() if checkpoint_id in entry.checkpoints), None)

    def _starters(self, checkpoint_ids: Sequence[str]) -> Mapping[str, Set[str]]:
        with self._lock:
            records = [entry.record for entry in self._entries.values() if not entry.record.job.terminal]
        return {name: {record.job.id for record in records if record.starts_from == name} for name in checkpoint_ids}

    def _released(self, checkpoint_id: str, job_id: str) -> None:
        raise AssertionError("jobs that have ended are no starters here")

    def _removed(self, removal: Removal) -> bool:
        deletion = removal.deletion
        with self._lock:
            entry = self._entries.get(deletion.job_id)
            if entry is None or any(self._starters(removal.checkpoints).values()):
                return False
            if not deletion.checkpoint_id:
                del self._entries[deletion.job_id]
            elif entry.checkpoints.pop(deletion.checkpoint_id, None) is None:
                return False
            self._deletions.append(deletion)
        for bell in () if deletion.checkpoint_id else tuple(self._bells):
            bell.ring(deletion.job_id)
        return True

    def deletions(self) -> Sequence[Deletion]:
        """See JobStore.deletions."""
        with self._lock:
            found = tuple(self._deletions)
        return sorted(found, key=lambda deletion: (deletion.time, deletion.job_id, deletion.checkpoint_id))

    def conclude(self, deletion: Deletion) -> None:
        """See JobStore.conclude."""
        with self._lock:
            self._deletions = [other for other in self._deletions if other != deletion]

    def heartbeat(self, node: Node) -> Drain:
        """See JobStore.heartbeat."""
        with self._lock:
            self._nodes[node.id] = replace(node, heartbeat_time=self._clock())
            return self._drains.get(node.id, Drain.NO)

    def nodes(self) -> Sequence[Node]:
        """See JobStore.nodes."""
        with self._lock:
            now = self._clock()
            return [
                self._seen(node, now - beat >= timedelta(seconds=self._leases.node))
                for _, node in sorted(self._nodes.items())
                if (beat := node.heartbeat_time) and now - beat < _NODES_KEPT
            ]

    def _seen(self, node: Node, lost: bool) -> Node:
        def held(slot: Slot) -> Slot:
            return replace(slot, job_id=self._slots.get((node.id, slot.index), ""))

        return node_state(
            replace(node, slots=tuple(held(slot) for slot in node.slots)),
            lost=lost,
            drain=self._drains.get(node.id, Drain.NO),
            failures=self._failures.get(node.id, ()),
        )

    def drain(self, node_id: str, drain: Drain) -> Node:
        """See JobStore.drain."""
        with self._lock:
            if node_id not in {node.id for node in self.nodes()}:
                raise no_such_node(node_id)
            self._drains[node_id] = drain
            if drain is Drain.NO:
                self._failures.pop(node_id, None)
            return next(node for node in self.nodes() if node.id == node_id)

    def remove_node(self, node_id: str) -> None:
        """See JobStore.remove_node."""
        with self._lock:
            self._nodes.pop(node_id, None)
            self._drains.pop(node_id, None)

    def ping(self) -> None:
        """See JobStore.ping."""

    def doubts(self) -> Sequence[str]:
        """See JobStore.doubts."""
        return ()

    def census(self) -> Census:
        """See JobStore.census."""
        with self._lock:
            specs = [
                entry.record.job.spec for entry in self._entries.values() if entry.record.job.state is State.QUEUED
            ]
            return Census(
                nodes=self.nodes(),
                queued=Counter((spec.resources.pool, spec.priority) for spec in specs),
                attempts_ended={cause: n for cause, n in self._tally.items() if not isinstance(cause, State)},
                jobs_ended={state: n for state, n in self._tally.items() if isinstance(state, State)},
                unarchived=sum(entry.record.job.terminal and not entry.archive for entry in self._entries.values()),
            )

    def _entry(self, job_id: str) -> _Entry:
        entry = self._entries.get(job_id)
        if entry is None:
            raise no_such_job(job_id)
        return entry


class _MemoryBell:
    """Rung by the writers' threads."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rang: set[str] = set()

    def ring(self, job_id: str) -> None:
        with self._condition:
            self._rang.add(job_id)
            self._condition.notify_all()

    def wait(self, timeout: float) -> frozenset[str]:
        """See Bell.wait."""
        with self._condition:
            self._condition.wait_for(lambda: self._rang, timeout)
            rang = frozenset(self._rang)
            self._rang.clear()
            return rang
