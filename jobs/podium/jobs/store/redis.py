"""The ledger in Redis 6.2 or newer: one instance, no cluster, `appendonly yes`, `maxmemory-policy noeviction`.

Every write is one run of lua/commit.lua, which does all of it or, when the job has been written since it was read,
nothing. So writers need no lock, and a write that redis-py repeats after a lost answer finds itself done. What may be
written is decided in Python, by podium.jobs.store._record, the same as for every store.
"""

import itertools
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import redis

from podium.jobs import wire
from podium.jobs.errors import UnavailableError
from podium.jobs.events import MetricBatch
from podium.jobs.job import Checkpoint, Job, Node
from podium.jobs.states import State
from podium.jobs.store._base import Assignment, Bell, Drain, EventPage, Leases, StoredEvent, Usage
from podium.jobs.store._ledger import (
    Ledger,
    Outcome,
    by_step,
    check_kept,
    new_job_id,
    no_such_checkpoint,
    no_such_job,
    no_such_node,
    node_state,
    parse_cursor,
    utc_now,
)
from podium.jobs.store._record import Change, Record
from podium.jobs.store._redis_bell import RedisBell
from podium.jobs.store._redis_keys import FIELDS, Keys, amended, from_fields, to_fields
from podium.jobs.store._redis_link import Command, Commands, Link, Move, connect

__all__ = ["RedisStore", "connect"]

_DAY = 86_400
_JOBS = 100
_ROWS = 500
JobPage: TypeAlias = tuple[list[Job], str]
Jobs: TypeAlias = list[Job]
T = TypeVar("T")


class RedisStore(Ledger):
    """A JobStore that every process of the cluster shares. Threads may share it.

    Args:
        client: from `connect`.
        clock: the time, aware, as written into records; leases run by Redis's own.
        leases: how long silence means nothing.
        prefix: of every key.
        events_kept: events a job, at most; older ones are trimmed.
        new_id: makes job ids.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        clock: Callable[[], datetime] = utc_now,
        leases: Leases = Leases(),  # noqa: B008  # frozen
        prefix: str = "podium:",
        events_kept: int = 20_000,
        new_id: Callable[[], str] = new_job_id,
    ) -> None:
        super().__init__(clock=clock, leases=leases, new_id=new_id)
        self._link = Link(client)
        self._keys = Keys(prefix=prefix)
        self._events_kept = events_kept
        self._unanswered: dict[Assignment, str] = {}
        self._read: dict[str, tuple[bytes, Node]] = {}

    def _load(self, job_id: str) -> Record | None:
        return from_fields(self._link.run(self._hash(job_id))[0])

    def _hash(self, job_id: str) -> Command:
        return ("HMGET", self._keys.job(job_id), *FIELDS)

    def _request(self, project: str, request_id: str) -> tuple[str, str] | None:
        value = self._link.run(("GET", self._keys.request(project, request_id)))[0]
        if value is None:
            return None
        job_id, digest = value.decode().split(" ")
        return job_id, digest

    def _next_number(self) -> int:
        number: int = self._link.run(("INCR", self._keys.created))[0]  # repeated, it leaves a gap, which nobody minds
        return number

    def _position(self, record: Record) -> int | None:
        rank = self._link.run(self._rank(record))[0]
        return None if rank is None else rank + 1

    def _rank(self, record: Record) -> Command:
        return ("ZRANK", self._keys.pending(record.job.spec.resources.pool), record.job.id)

    def _commit(
        self,
        before: Record | None,
        change: Change,
        *,
        request: tuple[str, str] | None = None,
        shown: int | None = None,
    ) -> Outcome:
        job = change.record.job
        guards: Commands = []
        commands: Commands = []
        if change.record != before:
            fields = dict(to_fields(change.record, new=before is None))
            if change.amended:
                fields["born"] = amended(self._link.run(("HGET", self._keys.job(job.id), "born"))[0], change.record)
            commands.append(("HSET", self._keys.job(job.id), *(word for item in fields.items() for word in item)))
        if before is None:
            commands.append(("ZADD", self._keys.jobs(job.project), change.record.number, job.id))
        if request:
            key = self._keys.request(job.project, request[0])
            guards.append(("EXISTS", key))
            commands.append(("SET", key, f"{job.id} {request[1]}", "EX", 7 * _DAY))
        if change.faulty:
            failures, now = self._keys.failures(change.faulty), str(self._clock().timestamp())
            commands.append(("ZADD", failures, now, f"{job.id}-{job.attempt}"))
            commands.append(("EXPIRE", failures, 2 * _DAY))
        for wanted, moves in (self._place(before, change), self._history(change)):
            guards += wanted
            commands += moves
        move = Move(
            stamp=before.stamp if before else "",
            next_stamp=change.record.stamp,
            state=before.job.state if before else None,
            fence=before.fence if before else 0,
            path=change.path,
            shown=shown,
            next_fence=change.record.fence,
        )
        return Outcome[self._link.commit(self._keys.job(job.id), move, guards, commands).upper()]

    def _place(self, before: Record | None, change: Change) -> tuple[Commands, Commands]:
        """The queue, the slots and the lease that go with the new state; guards and commands."""
        guards: Commands = []
        commands: Commands = []
        job, old, new = change.record.job, before.places if before else (), change.record.places
        was_queued = before is not None and before.job.state is State.QUEUED
        pending = self._keys.pending(job.spec.resources.pool)
        if job.state is State.QUEUED and (not was_queued or change.amended):
            commands.append(("ZADD", pending, change.record.score, job.id))
        if was_queued and job.state is not State.QUEUED:
            commands.append(("ZREM", pending, job.id))
        if new and not old:
            guards += [("HEXISTS", self._keys.slots(node), slot) for node, slot in new]
            commands += [("HSET", self._keys.slots(node), slot, job.id) for node, slot in new]
            commands.append(("ZADD", self._keys.holding, change.record.number, job.id))
        if old and not new:
            commands += [("HDEL", self._keys.slots(node), slot) for node, slot in old]
            commands.append(("ZREM", self._keys.holding, job.id))
            commands.append(("DEL", self._keys.lease(job.id)))
        if change.lease is not None:
            milliseconds = math.ceil(change.lease * 1000)
            commands.append(("SET", self._keys.lease(job.id), change.record.fence, "PX", milliseconds))
        return guards, commands

    def _history(self, change: Change) -> tuple[Commands, Commands]:
        """Events, metrics and checkpoints; guards and commands."""
        guards: Commands = []
        commands: Commands = []
        job_id, registered = change.record.job.id, self._keys.checkpoints(change.record.job.id)
        kept = ("MAXLEN", self._events_kept)
        for sequence, event in change.numbered:
            row = f"{sequence}-0"
            commands.append(("XADD", self._keys.events(job_id), *kept, row, "d", wire.to_bytes(event)))
            if isinstance(event.payload, MetricBatch):
                data = wire.to_bytes(event.payload)
                commands.append(("XADD", self._keys.metrics(job_id), row, "a", event.attempt, "d", data))
            if isinstance(event.payload, Checkpoint):
                guards.append(("HEXISTS", registered, event.payload.id))
                commands.append(("HSET", registered, event.payload.id, wire.to_bytes(event.payload)))
                commands.append(("SET", self._keys.checkpoint(event.payload.id), job_id))
        if change.forgotten:
            commands.append(("HDEL", registered, change.forgotten))
            commands.append(("DEL", self._keys.checkpoint(change.forgotten)))
        if change.events:
            commands.append(("PUBLISH", self._keys.bell, job_id))
        return guards, commands

    def begin(self, assignment: Assignment, *, resumed_from_step: int = 0, rendezvous: str = "") -> Job:
        """See JobStore.begin. After UnavailableError this process may ask again, whether or not it had got through."""
        starter = self._unanswered.pop(assignment, None) or secrets.token_hex(8)
        try:
            return self._begin(assignment, starter, resumed_from_step, rendezvous)
        except UnavailableError:
            self._unanswered[assignment] = starter
            raise

    def list(
        self, *, project: str, states: frozenset[State] = frozenset(), before: str = "", limit: int = 50
    ) -> JobPage:
        """See JobStore.list."""
        end = parse_cursor(before)
        found: list[Record] = []
        for record in self._newest_first(project, end):
            if not states or record.job.state in states:
                found.append(record)
            if len(found) > limit:
                break
        page = found[:limit]
        return self._all_placed(page), str(page[-1].number) if len(found) > limit else ""

    def _newest_first(self, project: str, end: int | None) -> Iterator[Record]:
        page = ("WITHSCORES", "LIMIT", 0, _JOBS)
        while True:
            above = "+inf" if end is None else f"({end}"
            (rows,) = self._link.run(("ZREVRANGEBYSCORE", self._keys.jobs(project), above, "-inf", *page))
            if not rows:
                return
            answers = self._link.run(*(self._hash(job_id.decode()) for job_id in rows[::2]))
            yield from (record for fields in answers if (record := from_fields(fields)))
            end = int(rows[-1])

    def _all_placed(self, records: Sequence[Record]) -> Jobs:
        return [self._placed(record) for record in records]

    def pending(self, pool: str) -> Sequence[str]:
        """See JobStore.pending."""
        return [job_id.decode() for job_id in self._link.run(("ZRANGE", self._keys.pending(pool), 0, -1))[0]]

    def line(self, pool: str) -> Sequence[tuple[str, int]]:
        """See JobStore.line."""
        (rows,) = self._link.run(("ZRANGE", self._keys.pending(pool), 0, -1, "WITHSCORES"))
        return [(job_id.decode(), int(place)) for job_id, place in zip(rows[::2], rows[1::2], strict=True)]

    def known(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """See JobStore.known."""
        pages = _pages(job_ids, _JOBS)
        answers = itertools.chain.from_iterable(self._link.run(*map(self._hash, page)) for page in pages)
        return [record.job for fields in answers if (record := from_fields(fields))]

    def holding(self, job_ids: Sequence[str] | None = None) -> Sequence[tuple[Job, Assignment, bool]]:
        """See JobStore.holding."""
        found: list[tuple[Job, Assignment, bool]] = []
        for page in _pages(self._holders() if job_ids is None else job_ids, _JOBS):
            # Both in one step, so that the lease is that of the very attempt that the record names.
            pairs = [(self._hash(name), ("EXISTS", self._keys.lease(name))) for name in page]
            answers = self._link.run(*itertools.chain.from_iterable(pairs))
            for fields, alive in zip(answers[::2], answers[1::2], strict=True):
                record = from_fields(fields)
                if record and record.places:
                    found.append((record.job, record.assignment, alive == 1))
        return found

    def silent(self) -> Sequence[str]:
        """See JobStore.silent."""
        holders = self._holders()
        pages = _pages(holders, _ROWS)
        alive = [
            answer
            for page in pages
            for answer in self._link.run(*(("EXISTS", self._keys.lease(name)) for name in page))
        ]
        return [name for name, lives in zip(holders, alive, strict=True) if not lives]

    def _holders(self) -> Sequence[str]:
        (ids,) = self._link.run(("ZRANGE", self._keys.holding, 0, -1))
        return [job_id.decode() for job_id in ids]

    def usage(self) -> Usage | None:
        """See JobStore.usage."""
        (rows,) = self._link.run(("HGETALL", self._keys.usage))
        words = {name.decode(): value.decode() for name, value in rows.items()}
        if (time := words.pop("time", None)) is None:
            return None
        seconds = {(pair[0], pair[1]): float(value) for name, value in words.items() if (pair := name.split(" "))}
        return Usage(time=datetime.fromisoformat(time), seconds=seconds)

    def write_usage(self, usage: Usage) -> None:
        """See JobStore.write_usage."""
        rows = [word for (pool, project), used in usage.seconds.items() for word in (f"{pool} {project}", str(used))]
        self._link.run(("DEL", self._keys.usage), ("HSET", self._keys.usage, "time", usage.time.isoformat(), *rows))

    def lead(self, owner: str, seconds: float) -> bool:
        """See JobStore.lead."""
        return self._link.lead(self._keys.leader, owner, math.ceil(seconds * 1000))

    def resign(self, owner: str) -> None:
        """See JobStore.resign."""
        self._link.resign(self._keys.leader, owner)

    def events(self, job_id: str, *, after: int, limit: int = 1000) -> EventPage:
        """See JobStore.events."""
        stream = self._keys.events(job_id)
        first, last, rows = self._link.run(
            ("XRANGE", stream, "-", "+", "COUNT", 1),
            ("XREVRANGE", stream, "+", "-", "COUNT", 1),
            # A stream's ids have 64 bits; check_kept refuses what lies in the future.
            ("XRANGE", stream, f"{min(max(after, 0), 2**63) + 1}-0", "+", "COUNT", limit),
        )
        if not first:
            raise no_such_job(job_id)
        page = EventPage(
            events=tuple(StoredEvent(sequence=_sequence(row), data=fields[b"d"]) for row, fields in rows),
            oldest_sequence=_sequence(first[0][0]),
            last_sequence=_sequence(last[0][0]),
        )
        return check_kept(page, after)

    @contextmanager
    def bell(self) -> Iterator[Bell]:
        """See JobStore.bell."""
        with closing(RedisBell(self._link, self._keys.bell)) as bell:
            yield bell

    def metrics(self, job_id: str) -> Iterator[tuple[int, MetricBatch]]:
        """See JobStore.metrics."""
        self._known(job_id)
        return self._metrics(job_id)

    def _metrics(self, job_id: str) -> Iterator[tuple[int, MetricBatch]]:
        start = "-"
        while True:
            (rows,) = self._link.run(("XRANGE", self._keys.metrics(job_id), start, "+", "COUNT", _ROWS))
            for _, fields in rows:
                yield int(fields[b"a"]), wire.from_bytes(MetricBatch, fields[b"d"])
            if len(rows) < _ROWS:
                return
            start = f"{_sequence(rows[-1][0]) + 1}-0"

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """See JobStore.checkpoints."""
        fields, listed = self._link.run(self._hash(job_id), ("HVALS", self._keys.checkpoints(job_id)))
        record = from_fields(fields)
        if record is None:
            raise no_such_job(job_id)
        return by_step([wire.from_bytes(Checkpoint, data) for data in listed], record.best)

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """See JobStore.checkpoint."""
        job_id = self._link.run(("GET", self._keys.checkpoint(checkpoint_id)))[0]
        for checkpoint in self.checkpoints(job_id.decode()) if job_id else ():
            if checkpoint.id == checkpoint_id:
                return checkpoint
        raise no_such_checkpoint(checkpoint_id)

    def heartbeat(self, node: Node) -> Drain:
        """See JobStore.heartbeat."""
        now = self._clock()
        bare = replace(node, heartbeat_time=now, slots=tuple(replace(slot, job_id="") for slot in node.slots))
        *_, asked = self._link.run(
            ("SET", self._keys.node(node.id), wire.to_bytes(bare), "EX", 2 * _DAY),
            ("SET", self._keys.node_lease(node.id), 1, "PX", math.ceil(self._leases.node * 1000)),
            ("ZADD", self._keys.nodes, str(now.timestamp()), node.id),
            ("ZREMRANGEBYSCORE", self._keys.nodes, "-inf", str(now.timestamp() - _DAY)),
            ("GET", self._keys.drain(node.id)),
        )
        return Drain(asked.decode()) if asked else Drain.NO

    def nodes(self) -> Sequence[Node]:
        """See JobStore.nodes."""
        since = f"({self._clock().timestamp() - _DAY}"
        (ids,) = self._link.run(("ZRANGEBYSCORE", self._keys.nodes, since, "+inf"))
        names = sorted(map(bytes.decode, ids))
        self._read = {name: known for name, known in self._read.items() if name in set(names)}
        found: list[Node] = []
        for page in _pages(names, _JOBS):
            rows = zip(page, self._about_nodes(page), strict=True)
            found += [node for name, row in rows if (node := self._node(name, row))]
        return found

    def _about_nodes(self, node_ids: Sequence[str]) -> Iterable[Sequence[Any]]:
        """Of each: its record, its lease, what is asked of it, its failures and who holds its slots."""
        since = str(self._clock().timestamp() - _DAY)
        keys, count = self._keys, len(node_ids)
        # Few commands: a client in Python spends most of the time on each one's answer.
        records, leases, drains, *rest = self._link.run(
            ("MGET", *map(keys.node, node_ids)),
            ("MGET", *map(keys.node_lease, node_ids)),
            ("MGET", *map(keys.drain, node_ids)),
            *(("ZCOUNT", keys.failures(node_id), since, "+inf") for node_id in node_ids),
            *(("HGETALL", keys.slots(node_id)) for node_id in node_ids),
        )
        return zip(records, leases, drains, rest[:count], rest[count:], strict=True)

    def _node(self, node_id: str, row: Sequence[Any]) -> Node | None:
        data, alive, drain, failures, held = row
        if data is None:
            return None
        known = self._read.get(node_id)
        if known is None or known[0] != data:
            known = self._read[node_id] = data, wire.from_bytes(Node, data)
        node = known[1]
        if held:
            slots = (replace(slot, job_id=held.get(b"%d" % slot.index, b"").decode()) for slot in node.slots)
            node = replace(node, slots=tuple(slots))
        return node_state(node, lost=not alive, drain=Drain(drain.decode()) if drain else Drain.NO, failures=failures)

    def drain(self, node_id: str, drain: Drain) -> Node:
        """See JobStore.drain."""
        if not self._link.run(("EXISTS", self._keys.node(node_id)))[0]:
            raise no_such_node(node_id)
        if drain is Drain.NO:
            self._link.run(("DEL", self._keys.drain(node_id), self._keys.failures(node_id)))
        else:
            self._link.run(("SET", self._keys.drain(node_id), drain.value, "EX", 2 * _DAY))
        (row,) = self._about_nodes([node_id])
        node = self._node(node_id, row)
        if node is None:
            raise no_such_node(node_id)
        return node

    def remove_node(self, node_id: str) -> None:
        """See JobStore.remove_node."""
        gone = (self._keys.node(node_id), self._keys.node_lease(node_id), self._keys.drain(node_id))
        self._link.run(("ZREM", self._keys.nodes, node_id), ("DEL", *gone))


def _pages(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """The items, so many at a time."""
    rest = iter(items)
    while page := tuple(itertools.islice(rest, size)):
        yield page


def _sequence(row: bytes) -> int:
    return int(row.split(b"-")[0])
