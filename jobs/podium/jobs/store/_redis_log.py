"""A job's log, as it stands in Redis: a stream beside the events, so that neither pushes the other out."""

import heapq
import json
from collections.abc import Iterator
from operator import itemgetter

from podium.api.v1 import event_pb2
from podium.jobs.store._ledger import Ledger, no_such_job
from podium.jobs.store._log import a_page, lines_in
from podium.jobs.store._redis_keys import Keys
from podium.jobs.store._redis_link import Commands, Link
from podium.jobs.store._terms import LogPage, StoredEvent, StoredLines

_ROWS = 500


class RedisLog(Ledger):
    """The part of RedisStore that is about the log."""

    _link: Link
    _keys: Keys

    def _trimmed(self, job_id: str, first: int) -> Commands:
        """Drops the log before an event, and the events before it, which could not be told whole any more."""
        streams = (self._keys.log(job_id), self._keys.events(job_id))
        return [("XTRIM", stream, "MINID", f"{first}-0") for stream in streams]

    def _log_page(self, job_id: str, offset: int, limit: int) -> LogPage | str:
        keys = (self._keys.job(job_id), self._keys.events(job_id), self._keys.log(job_id))
        archive, ledger, newest, oldest, rows = self._link.log(keys, offset, limit)
        if ledger is None:
            raise no_such_job(job_id)
        if archive:
            digest: str = archive.decode()
            return digest
        end = json.loads(ledger).get("lines")
        last = _parts(newest[0][0])[0]
        if end is None:
            page = a_page(self._lines(job_id), last_sequence=last, offset=offset, limit=limit)
            # It was read in many steps: should it have moved meanwhile, the archive has all of it.
            (moved,) = self._link.run(("HGET", self._keys.job(job_id), "archive"))
            return moved.decode() if moved else page
        return LogPage(
            rows=tuple(StoredLines(offset=_parts(row)[1], data=fields[b"l"]) for row, fields in rows)
            if offset < end
            else (),
            oldest_offset=_parts(oldest[0][0])[1] if oldest else end,
            end_offset=end,
            last_sequence=last,
        )

    def _lines(self, job_id: str) -> Iterator[tuple[int, StoredEvent]]:
        end = 0
        streams = (self._log_rows(job_id), self._old_rows(job_id))
        for sequence, before, data in heapq.merge(*streams, key=itemgetter(0)):
            end = max(end, before)
            yield end, StoredEvent(sequence=sequence, data=data)
            end += lines_in(data)

    def _log_rows(self, job_id: str) -> Iterator[tuple[int, int, bytes]]:
        """Of each row the sequence, the lines before it, and an event with attempt and lines alone."""
        after = 0
        while True:
            (rows,) = self._link.run(
                ("XRANGE", self._keys.log(job_id), f"{after + 1}-0", "+", "COUNT", _ROWS),
            )
            for row, fields in rows:
                after, before = _parts(row)
                yield after, before, fields[b"l"]
            if len(rows) < _ROWS:
                return

    def _old_rows(self, job_id: str) -> Iterator[tuple[int, int, bytes]]:
        """The same of what a version without a stream for the log wrote among the events; it did not count."""
        record = self._load(job_id)
        if record is None or record.lines is not None:
            return
        after = 0
        while True:
            (rows,) = self._link.run(
                ("XRANGE", self._keys.events(job_id), f"{after + 1}-0", "+", "COUNT", _ROWS),
            )
            for row, fields in rows:
                after = _parts(row)[0]
                if b"d" in fields and event_pb2.JobEvent.FromString(fields[b"d"]).HasField("log"):
                    yield after, 0, fields[b"d"]
            if len(rows) < _ROWS:
                return


def _parts(row: bytes) -> tuple[int, int]:
    sequence, _, before = row.partition(b"-")
    return int(sequence), int(before)
