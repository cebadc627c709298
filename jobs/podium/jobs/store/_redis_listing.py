"""A project's jobs page by page, as they stand in Redis."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from podium.jobs.job import Job, QueueInfo
from podium.jobs.states import State
from podium.jobs.store._ledger import Ledger, parse_cursor
from podium.jobs.store._record import Record
from podium.jobs.store._redis_keys import FIELDS, Keys, from_fields, message_of
from podium.jobs.store._redis_link import Command, Link, pages
from podium.jobs.store._terms import JobPage, Wanted

_ROWS = 100
#: So many jobs are read in one answer: each may have a megabyte of classes, and the page end with the first.
_AT_ONCE = 20
#: What may be looked at for one page: a job that its state rules out costs 1, one that is read costs more.
_PATIENCE = 6_000
_READ = 3
#: Bytes of jobs on a page, or one job: who sets no limit of its own takes no message of more than 4 MiB.
_MOST_BYTES = 3 << 20
Fields = list[Any]
Jobs: TypeAlias = list[Job]


class RedisListing(Ledger):
    """The part of RedisStore that lists jobs."""

    _link: Link
    _keys: Keys

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
        found: list[Record] = []
        patience, room = _PATIENCE, _MOST_BYTES
        for number, fields in self._listed(project, parse_cursor(cursor), oldest_first, states):
            if fields and _matches(fields, states, wanted) and (record := from_fields(fields)):
                room -= sum(map(len, filter(None, fields)))
                if len(found) == limit or (found and room < 0):
                    return self._all_placed(found), str(found[-1].number)
                found.append(record)
            patience -= _READ if fields else 1
            if patience <= 0:
                return self._all_placed(found), str(number)
        return self._all_placed(found), ""

    def _listed(
        self, project: str, start: int | None, oldest_first: bool, states: frozenset[State]
    ) -> Iterator[tuple[int, Fields | None]]:
        """The numbers of jobs in order, each with its fields; None where the job is in none of the states."""
        while numbered := self._numbered(project, start, oldest_first):
            names = [name for name, _ in numbered]
            wanted = frozenset(self._perhaps_in(names, states) if states else names)
            for part in pages(numbered, _AT_ONCE):
                read = [name for name, _ in part if name in wanted]
                known = dict(zip(read, self._link.read([*map(self._keys.job, read)], FIELDS), strict=True))
                for name, number in part:
                    yield number, known.get(name)
            start = numbered[-1][1]

    def _numbered(self, project: str, start: int | None, oldest_first: bool) -> Sequence[tuple[str, int]]:
        """The next jobs beyond the number `start`, in order."""
        command, first, last = (
            ("ZRANGEBYSCORE", "-inf", "+inf") if oldest_first else ("ZREVRANGEBYSCORE", "+inf", "-inf")
        )
        begin = first if start is None else f"({start}"
        (rows,) = self._link.run((command, self._keys.jobs(project), begin, last, "WITHSCORES", "LIMIT", 0, _ROWS))
        return [(name.decode(), int(number)) for name, number in zip(rows[::2], rows[1::2], strict=True)]

    def _perhaps_in(self, job_ids: Sequence[str], states: frozenset[State]) -> Sequence[str]:
        """Leaves out jobs that are in none of the states, without reading the whole of each."""
        wanted = {state.name.encode() for state in states}
        answers = self._link.read([*map(self._keys.job, job_ids)], ("state", "stamp"))
        return [
            name
            for name, (state, stamp) in zip(job_ids, answers, strict=True)
            # A state of another stamp is older than the job, see lua/commit.lua.
            if state is None or not state.endswith(b" " + stamp) or state.split(b" ")[0] in wanted
        ]

    def _all_placed(self, records: Sequence[Record]) -> Jobs:
        """The jobs, those that are queued with their place in line."""
        queued = [record for record in records if record.job.state is State.QUEUED]
        ranks = self._link.run(*map(self._rank, queued)) if queued else []
        places = {record.job.id: rank for record, rank in zip(queued, ranks, strict=True) if rank is not None}
        return [
            replace(record.job, queue=QueueInfo(position=places[record.job.id] + 1))
            if record.job.id in places
            else record.job
            for record in records
        ]

    def _rank(self, record: Record) -> Command:
        return ("ZRANK", self._keys.pending(record.job.spec.resources.pool), record.job.id)


def _matches(fields: Fields, states: frozenset[State], wanted: Wanted | None) -> bool:
    # Of the message, as a whole record takes a hundred times as long to read.
    job = message_of(fields)
    return job is not None and (not states or State(job.state) in states) and (wanted is None or wanted(job))
