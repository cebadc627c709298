"""A job's events, metrics and checkpoints, as they stand in Redis."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias

from podium.api.v1 import event_pb2
from podium.jobs import wire
from podium.jobs.errors import NotFoundError
from podium.jobs.events import JobEvent, LogBatch, MetricBatch
from podium.jobs.job import Checkpoint
from podium.jobs.store._ledger import by_step, no_such_checkpoint, no_such_job
from podium.jobs.store._record import Change, Record
from podium.jobs.store._redis_keys import FIELDS, Keys, from_fields
from podium.jobs.store._redis_link import Commands, Link
from podium.jobs.store._redis_log import RedisLog
from podium.jobs.store._terms import EventPage, StoredEvent

#: Points of a page may be ten megabytes where there are more.
_ROWS = 200
#: Points that are read for their columns alone come in pages of about so many bytes, however large their rows are.
_PAGE_BYTES = 512 << 10
_FIRST_ROWS, _MOST_ROWS = 16, 2000
#: The greatest second half of an id.
_MOST = 2**64 - 1
Row: TypeAlias = tuple[bytes, Mapping[bytes, bytes]]


class RedisHistory(RedisLog):
    """The part of RedisStore that is about what happened to a job."""

    _link: Link
    _keys: Keys
    _events_kept: int

    def _written_history(self, before: Record, change: Change) -> tuple[Commands, Commands]:
        """Events, metrics and checkpoints; guards and commands."""
        guards: Commands = []
        commands: Commands = []
        job, registered = change.record.job, self._keys.checkpoints(change.record.job.id)
        lines = change.lines_before
        for sequence, event in change.numbered:
            commands += self._written_event(sequence, event, lines)
            lines += len(event.payload.lines) if isinstance(event.payload, LogBatch) else 0
            if isinstance(event.payload, Checkpoint):
                guards.append((0, "HEXISTS", registered, event.payload.id))
                commands.append(("HSET", registered, event.payload.id, wire.to_bytes(event.payload)))
                commands.append(("SET", self._keys.checkpoint(event.payload.id), job.id))
        if first := change.first_kept(before):
            commands += self._trimmed(job.id, first)
        if change.forgotten:
            commands.append(("HDEL", registered, change.forgotten))
            commands.append(("DEL", self._keys.checkpoint(change.forgotten)))
        if job.end_time is not None:
            commands.append(("ZADD", self._keys.ended, str(job.end_time.timestamp()), job.id))
        if change.events:
            commands.append(("PUBLISH", self._keys.bell, job.id))
        return guards, commands

    def _written_event(self, sequence: int, event: JobEvent, lines: int) -> Commands:
        """Points and lines stand in streams of their own, and only there: two of each would be half of a job."""
        row, job_id = f"{sequence}-0", event.job_id
        add = ("XADD", self._keys.events(job_id), "MAXLEN", self._events_kept, row)
        if not isinstance(event.payload, MetricBatch | LogBatch):
            return [(*add, "d", wire.to_bytes(event))]
        message = wire.to_proto(event)
        time = event_pb2.JobEvent(time=message.time).SerializeToString()
        if isinstance(event.payload, LogBatch):
            log = event_pb2.JobEvent(attempt=event.attempt, log=message.log).SerializeToString()
            return [(*add, "t", time), ("XADD", self._keys.log(job_id), f"{sequence}-{lines}", "l", log)]
        points = event_pb2.JobEvent(attempt=event.attempt, metrics=message.metrics).SerializeToString()
        return [(*add, "t", time), ("XADD", self._keys.metrics(job_id), row, "m", points)]

    def _page(self, job_id: str, after: int, limit: int) -> EventPage | str:
        stream = self._keys.events(job_id)
        # A stream's ids have 64 bits; what lies in the future is refused later.
        start = f"{min(max(after, 0), 2**63) + 1}-0"
        archived, first, last, rows, points, lines = self._link.run(
            ("HGET", self._keys.job(job_id), "archive"),
            ("XRANGE", stream, "-", "+", "COUNT", 1),
            ("XREVRANGE", stream, "+", "-", "COUNT", 1),
            ("XRANGE", stream, start, "+", "COUNT", limit),
            # Among so many events there are no more with metrics, or with lines.
            ("XRANGE", self._keys.metrics(job_id), start, "+", "COUNT", limit),
            ("XRANGE", self._keys.log(job_id), start, "+", "COUNT", limit),
        )
        if archived:
            digest: str = archived.decode()
            return digest
        if not first:
            raise no_such_job(job_id)
        oldest = _sequence(first[0][0])
        # Before the oldest there are points and lines alone, with which nothing here would fit together.
        events = _stored(job_id, rows, [*points, *lines]) if after >= oldest - 1 else ()
        return EventPage(events=events, oldest_sequence=oldest, last_sequence=_sequence(last[0][0]))

    def news(self, after: Mapping[str, int], *, limit: int) -> Mapping[str, Sequence[StoredEvent]]:
        """See JobStore.news."""
        streams = {self._keys.events(job_id): job_id for job_id in after}
        beside = {kind(job_id): job_id for kind in (self._keys.metrics, self._keys.log) for job_id in after}
        places = [f"{place}-0" for place in after.values()]
        # After the row of that sequence, however many lines it has before it.
        past = [f"{place}-{_MOST}" for place in after.values()]
        there, rows, others = self._link.run(
            ("EXISTS", *streams),
            ("XREAD", "COUNT", limit, "STREAMS", *streams, *places),
            ("XREAD", "COUNT", limit, "STREAMS", *beside, *places, *past),
        )
        apart: dict[str, list[Row]] = {job_id: [] for job_id in after}
        for key, found in others or ():
            apart[beside[key.decode()]] += found
        events = {(job_id := streams[key.decode()]): _stored(job_id, found, apart[job_id]) for key, found in rows or ()}
        news = {name: page if page[0].sequence == after[name] + 1 else () for name, page in events.items()}
        return news if there == len(streams) else {**news, **self._absent(streams)}

    def _absent(self, streams: Mapping[str, str]) -> Mapping[str, tuple[StoredEvent, ...]]:
        there = self._link.run(*(("EXISTS", key) for key in streams))
        return {job_id: () for job_id, exists in zip(streams.values(), there, strict=True) if not exists}

    def _points(self, job_id: str) -> Iterator[StoredEvent]:
        after = 0
        while True:
            # Both in one step: from one page to the next, the rest may have moved into the archive.
            (stamp, archived), rows = self._link.run(
                ("HMGET", self._keys.job(job_id), "stamp", "archive"),
                ("XRANGE", self._keys.metrics(job_id), f"{after + 1}-0", "+", "COUNT", _ROWS),
            )
            if stamp is None:
                raise no_such_job(job_id)
            if archived:
                with self._shelf(job_id) as archive:
                    yield from archive.points(job_id, archived.decode(), after=after)
                return
            for row, fields in rows:
                after = _sequence(row)
                yield StoredEvent(sequence=after, data=_points_of(fields))
            if len(rows) < _ROWS:
                return

    def _point_rows(self, job_id: str) -> Iterator[Sequence[bytes]]:
        after, count = 0, _FIRST_ROWS
        while True:
            (stamp, archived), rows = self._link.run(
                ("HMGET", self._keys.job(job_id), "stamp", "archive"),
                # redis-py knows commands by their names as text, and makes a dict of each row; so it leaves them alone.
                (b"XRANGE", self._keys.metrics(job_id), f"{after + 1}-0", "+", "COUNT", count),
            )
            if stamp is None:
                raise no_such_job(job_id)
            if archived:
                with self._shelf(job_id) as archive:
                    yield from archive.rows(job_id, archived.decode(), after=after)
                return
            found = [words[1] if words[0] == b"m" else _points_of(_pairs(words)) for _, words in rows]
            yield found
            if len(rows) < count:
                return
            after = _sequence(rows[-1][0])
            count = min(max(count * _PAGE_BYTES // sum(map(len, found)), 1), _MOST_ROWS)

    def ended(self, *, before: datetime, limit: int) -> Sequence[str]:
        """See JobStore.ended."""
        until = f"({before.timestamp()}"
        (ids,) = self._link.run(("ZRANGEBYSCORE", self._keys.ended, "-inf", until, "LIMIT", 0, limit))
        return [job_id.decode() for job_id in ids]

    def _archived(self, job_id: str, digest: str) -> bool:
        # In one step, and the first one counts: whoever comes later finds nothing left to drop. What makes room comes
        # first, so that it is done where Redis is full, too.
        return self._link.guarded(
            [(1, "EXISTS", self._keys.job(job_id))],
            [
                ("UNLINK", self._keys.events(job_id), self._keys.metrics(job_id), self._keys.log(job_id)),
                ("HSETNX", self._keys.job(job_id), "archive", digest),
                ("ZREM", self._keys.ended, job_id),
            ],
        )

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """See JobStore.checkpoints."""
        fields, listed = self._link.run(
            ("HMGET", self._keys.job(job_id), *FIELDS), ("HVALS", self._keys.checkpoints(job_id))
        )
        record = from_fields(fields)
        if record is None:
            raise no_such_job(job_id)
        return by_step([wire.from_bytes(Checkpoint, data) for data in listed], record.best)

    def job_of(self, checkpoint_id: str) -> str:
        """See JobStore.job_of."""
        job_id: bytes | None = self._link.run(("GET", self._keys.checkpoint(checkpoint_id)))[0]
        return job_id.decode() if job_id else ""

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """See JobStore.checkpoint."""
        job_id = self.job_of(checkpoint_id)
        # Between the two it may have been deleted, with its job or alone.
        with suppress(NotFoundError):
            for checkpoint in self.checkpoints(job_id) if job_id else ():
                if checkpoint.id == checkpoint_id:
                    return checkpoint
        raise no_such_checkpoint(checkpoint_id)


def _stored(job_id: str, rows: Sequence[Row], others: Sequence[Row]) -> tuple[StoredEvent, ...]:
    """The events of a page of the one stream, with the points and the lines of as many of the others."""
    named = event_pb2.JobEvent(job_id=job_id).SerializeToString()
    apart = {_sequence(row): fields.get(b"m") or fields.get(b"l", b"") for row, fields in others}
    return tuple(
        # Messages of one type, one after the other, are their union.
        StoredEvent(sequence=_sequence(row), data=fields.get(b"d") or named + fields[b"t"] + apart[_sequence(row)])
        for row, fields in rows
    )


def _pairs(words: Sequence[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(words[::2], words[1::2], strict=True))


def _points_of(fields: Mapping[bytes, bytes]) -> bytes:
    """An event with attempt and metrics alone, in whichever version's row."""
    if b"m" in fields:
        return fields[b"m"]
    points = event_pb2.JobEvent(attempt=int(fields[b"a"]))
    points.metrics.ParseFromString(fields[b"d"])
    data: bytes = points.SerializeToString()
    return data


def _sequence(row: bytes) -> int:
    return int(row.split(b"-")[0])
