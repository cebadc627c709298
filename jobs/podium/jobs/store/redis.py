"""The ledger in Redis 6.2 or newer: one instance, no cluster, `appendonly yes`, `maxmemory-policy noeviction`.

A new job is one run of lua/enter.lua, and every later write one of lua/commit.lua, which does all of it or, when the
job has been written since it was read, nothing. So writers need no lock, and a write that redis-py repeats after a lost
answer finds itself done. What may be written is decided in Python, by podium.jobs.store._record, the same as for every
store.
"""

import itertools
import json
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime

import redis

from podium.jobs.errors import UnavailableError
from podium.jobs.job import Job
from podium.jobs.states import State
from podium.jobs.store._archive import Archive
from podium.jobs.store._base import Bell
from podium.jobs.store._birth import Birth
from podium.jobs.store._ledger import LOG_KEPT, Outcome, new_job_id, no_such_job, utc_now
from podium.jobs.store._record import Change, Record, first_place
from podium.jobs.store._redis_audit import RedisAudit
from podium.jobs.store._redis_bell import RedisBell
from podium.jobs.store._redis_census import RedisCensus
from podium.jobs.store._redis_deletions import RedisDeletions
from podium.jobs.store._redis_history import RedisHistory
from podium.jobs.store._redis_keys import FIELDS, UNNUMBERED, Keys, amended, from_fields, serialized, to_fields
from podium.jobs.store._redis_link import Command, Commands, Link, Move, connect, pages
from podium.jobs.store._redis_listing import RedisListing
from podium.jobs.store._redis_notices import RedisNotices
from podium.jobs.store._redis_tokens import RedisTokens
from podium.jobs.store._terms import Assignment, Leases, Usage

__all__ = ["RedisAudit", "RedisStore", "RedisTokens", "connect"]

_DAY = 86_400
_JOBS = 100
#: So many failures of a machine's hardware are kept, until somebody trusts it again.
_FAILURES = 100
_ROWS = 500


class RedisStore(RedisCensus, RedisHistory, RedisListing, RedisDeletions, RedisNotices):
    """A JobStore that every process of the cluster shares. Threads may share it.

    Args:
        client: from `connect`.
        clock: the time, aware, as written into records; leases run by Redis's own.
        leases: how long silence means nothing.
        prefix: of every key.
        events_kept: events a job, at most; older ones are trimmed.
        log_kept: bytes of log a job, at most; older lines are trimmed, and the events before them.
        new_id: makes job ids.
        archive: where the history of ended jobs goes, for who reads it or moves it there.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        clock: Callable[[], datetime] = utc_now,
        leases: Leases = Leases(),  # noqa: B008  # frozen
        prefix: str = "podium:",
        events_kept: int = 20_000,
        log_kept: int = LOG_KEPT,
        new_id: Callable[[], str] = new_job_id,
        archive: Archive | None = None,
    ) -> None:
        super().__init__(clock=clock, leases=leases, new_id=new_id, archive=archive, log_kept=log_kept)
        self._link = Link(client)
        self._keys = Keys(prefix=prefix)
        self._events_kept = events_kept
        self._unanswered: dict[Assignment, str] = {}
        self._read = {}

    def _load(self, job_id: str) -> Record | None:
        return from_fields(self._link.run(self._hash(job_id))[0])

    def _hash(self, job_id: str) -> Command:
        return ("HMGET", self._keys.job(job_id), *FIELDS)

    def serialized(self, job_id: str) -> tuple[State, bytes]:
        """See JobStore.serialized."""
        if (found := serialized(self._link.run(self._hash(job_id))[0])) is None:
            raise no_such_job(job_id)
        return found

    def place(self, job_id: str, pool: str) -> int | None:
        """See JobStore.place."""
        rank: int | None = self._link.run(("ZRANK", self._keys.pending(pool), job_id))[0]
        return None if rank is None else rank + 1

    def _request(self, project: str, request_id: str) -> tuple[str, str] | None:
        value = self._link.run(("GET", self._keys.request(project, request_id)))[0]
        if value is None:
            return None
        job_id, digest = value.decode().split(" ")
        return job_id, digest

    def _enter(self, birth: Birth) -> int | None:
        own = self._keys
        keys = [
            own.job(birth.job_id),
            own.created,
            own.jobs(birth.project),
            own.pending(birth.pool),
            own.events(birth.job_id),
            own.pools,
        ]
        if birth.request_id:
            keys.append(own.request(birth.project, birth.request_id))
        if birth.starts_from:
            keys += (own.checkpoint(birth.starts_from), own.starters(birth.starts_from))
        request = (f"{birth.job_id} {birth.digest}", 7 * _DAY) if birth.request_id else ("", "")
        return self._link.enter(
            keys,
            birth.job_id,
            birth.stamp,
            birth.born,
            birth.now,
            UNNUMBERED,
            first_place(birth.priority),
            birth.event,
            birth.pool,
            own.bell,
            *request,
            int(bool(birth.starts_from)),
        )

    def _commit(self, before: Record, change: Change, *, shown: int | None = None) -> Outcome:
        job = change.record.job
        guards: Commands = []
        commands: Commands = []
        if change.record != before:
            fields = dict(to_fields(change))
            if change.amended:
                fields["born"] = amended(self._link.run(("HGET", self._keys.job(job.id), "born"))[0], change.record)
            commands.append(("HSET", self._keys.job(job.id), *(word for item in fields.items() for word in item)))
        if change.faulty:
            failures, now = self._keys.failures(change.faulty), str(self._clock().timestamp())
            commands.append(("ZADD", failures, now, f"{job.id}-{job.attempt}"))
            commands.append(("ZREMRANGEBYRANK", failures, 0, -1 - _FAILURES))
        for wanted, moves in (part(before, change) for part in (self._place, self._written_history)):
            guards += wanted
            commands += moves
        commands += (*self._unprotected(change), *self._counted(before, change), *self._written_notices(change))
        move = Move(
            stamp=before.stamp,
            next_stamp=change.record.stamp,
            state=before.job.state,
            fence=before.fence,
            path=change.path,
            shown=shown,
            next_fence=change.record.fence,
        )
        return Outcome[self._link.commit(self._keys.job(job.id), move, guards, commands).upper()]

    def _place(self, before: Record, change: Change) -> tuple[Commands, Commands]:
        """The queue, the slots and the lease that go with the new state; guards and commands."""
        guards: Commands = []
        commands: Commands = []
        job, old, new = change.record.job, before.places, change.record.places
        was_queued = before.job.state is State.QUEUED
        pending = self._keys.pending(job.spec.resources.pool)
        if job.state is State.QUEUED and (not was_queued or change.amended):
            commands.append(("ZADD", pending, change.record.score, job.id))
        if was_queued and job.state is not State.QUEUED:
            commands.append(("ZREM", pending, job.id))
        if new and not old:
            guards += [(0, "HEXISTS", self._keys.slots(node), slot) for node, slot in new]
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

    def begin(self, assignment: Assignment, *, resumed_from_step: int = 0, rendezvous: str = "") -> Job:
        """See JobStore.begin. After UnavailableError this process may ask again, whether or not it had got through."""
        starter = self._unanswered.pop(assignment, None) or secrets.token_hex(8)
        try:
            return self._begin(assignment, starter, resumed_from_step, rendezvous)
        except UnavailableError:
            self._unanswered[assignment] = starter
            raise

    def pending(self, pool: str) -> Sequence[str]:
        """See JobStore.pending."""
        return [job_id.decode() for job_id in self._link.run(("ZRANGE", self._keys.pending(pool), 0, -1))[0]]

    def line(self, pool: str) -> Sequence[tuple[str, int]]:
        """See JobStore.line."""
        (rows,) = self._link.run(("ZRANGE", self._keys.pending(pool), 0, -1, "WITHSCORES"))
        # All at once, as there may be tens of thousands and somebody looks at them four times a second.
        ids = b" ".join(rows[::2]).decode().split(" ") if rows else []
        return list(zip(ids, map(int, rows[1::2]), strict=True))

    def owned(self, project: str, job_ids: Sequence[str]) -> frozenset[str]:
        """See JobStore.owned."""
        key = self._keys.jobs(project)
        scores = [
            score
            for page in pages(job_ids, _ROWS)
            for score in self._link.run(*(("ZSCORE", key, job_id) for job_id in page))
        ]
        return frozenset(job_id for job_id, score in zip(job_ids, scores, strict=True) if score is not None)

    def known(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """See JobStore.known."""
        answers = itertools.chain.from_iterable(
            self._link.run(*map(self._hash, page)) for page in pages(job_ids, _JOBS)
        )
        return [record.job for fields in answers if (record := from_fields(fields))]

    def holding(self, job_ids: Sequence[str] | None = None) -> Sequence[tuple[Job, Assignment, bool]]:
        """See JobStore.holding."""
        found: list[tuple[Job, Assignment, bool]] = []
        for page in pages(self._holders() if job_ids is None else job_ids, _JOBS):
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
        alive = [
            answer
            for page in pages(holders, _ROWS)
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
        seconds = {(pool, project): float(used) for name, used in words.items() for pool, project in [json.loads(name)]}
        return Usage(time=datetime.fromisoformat(time), seconds=seconds)

    def write_usage(self, usage: Usage) -> None:
        """See JobStore.write_usage."""
        rows = [word for pair, used in usage.seconds.items() for word in (json.dumps(pair), str(used))]
        self._link.run(("DEL", self._keys.usage), ("HSET", self._keys.usage, "time", usage.time.isoformat(), *rows))

    def lead(self, owner: str, seconds: float) -> bool:
        """See JobStore.lead."""
        return self._link.lead(self._keys.leader, owner, math.ceil(seconds * 1000))

    def resign(self, owner: str) -> None:
        """See JobStore.resign."""
        self._link.resign(self._keys.leader, owner)

    @contextmanager
    def bell(self) -> Iterator[Bell]:
        """See JobStore.bell."""
        with closing(RedisBell(self._link, self._keys.bell)) as bell:
            yield bell
