"""Notices, and how far their readers are, as they stand in Redis."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from podium.jobs.notices import Notice, from_json, to_json
from podium.jobs.store._notices import NOTICES_KEPT, notices_of
from podium.jobs.store._record import Change
from podium.jobs.store._redis_keys import Keys
from podium.jobs.store._redis_link import Commands, Link
from podium.jobs.store._terms import Bookmark

_Row: TypeAlias = tuple[bytes, Mapping[bytes, bytes]]


class RedisNotices:
    """The part of RedisStore that is about what the world outside is told."""

    _link: Link
    _keys: Keys

    def _written_notices(self, change: Change) -> Commands:
        add = ("XADD", self._keys.notices, "MAXLEN", "~", NOTICES_KEPT, "*", "d")
        return [(*add, to_json(notice)) for notice in notices_of(change)]

    def notices(self, *, after: str, limit: int) -> Sequence[tuple[str, Notice]]:
        """See JobStore.notices."""
        (rows,) = self._link.run(("XRANGE", self._keys.notices, f"({after}" if after else "-", "+", "COUNT", limit))
        return [_read(row) for row in rows]

    def notices_at(self, places: Collection[str]) -> Sequence[tuple[str, Notice]]:
        """See JobStore.notices_at."""
        wanted = [("XRANGE", self._keys.notices, place, place) for place in places]
        found = [row for rows in (self._link.run(*wanted) if wanted else ()) for row in rows]
        return [_read(row) for row in sorted(found, key=_order)]

    def last_notice(self) -> str:
        """See JobStore.last_notice."""
        (rows,) = self._link.run(("XREVRANGE", self._keys.notices, "+", "-", "COUNT", 1))
        return rows[0][0].decode() if rows else ""

    def bookmark(self, reader: str) -> Bookmark | None:
        """See JobStore.bookmark."""
        (value,) = self._link.run(("GET", self._keys.bookmark(reader)))
        if value is None:
            return None
        words = json.loads(value)
        return Bookmark(after=words["after"], open=frozenset(words["open"]))

    def write_bookmark(self, reader: str, bookmark: Bookmark) -> None:
        """See JobStore.write_bookmark."""
        words = json.dumps({"after": bookmark.after, "open": sorted(bookmark.open)})
        self._link.run(("SET", self._keys.bookmark(reader), words))


def _read(row: _Row) -> tuple[str, Notice]:
    place, fields = row
    return place.decode(), from_json(fields[b"d"])


def _order(row: _Row) -> tuple[int, int]:
    milliseconds, number = row[0].split(b"-")
    return int(milliseconds), int(number)
