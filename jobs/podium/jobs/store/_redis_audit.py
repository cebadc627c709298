"""The audit trail, as it stands in Redis: one stream, only ever added to, whose oldest events go."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

import redis

from podium.jobs import wire
from podium.jobs.audit import AuditEvent
from podium.jobs.errors import OutOfRangeError
from podium.jobs.store._redis_keys import Keys
from podium.jobs.store._redis_link import Link

_ROWS = 500
#: A page that has looked at so many events ends, whatever it has found: its reader asks on.
_LOOKED_AT = 10_000
#: An event's id is that of its entry, padded so that ids compare as words.
_ID = re.compile(r"(\d{13})-(\d{6})")


class RedisAudit:
    """The audit trail that every server of the cluster shares. One thread writes; any may read.

    Args:
        client: from `connect`.
        kept: events that are kept, about.
        prefix: of every key.
    """

    def __init__(self, client: redis.Redis, *, kept: int, prefix: str = "podium:") -> None:
        self._link = Link(client)
        self._keys = Keys(prefix=prefix)
        self._kept = kept
        self._writer = secrets.token_hex(8)

    def append(self, batch: int, events: Sequence[AuditEvent]) -> None:
        """Adds events in order; a batch that was added already is not added again.

        Args:
            batch: a number that this object's writer raises with every call, from 1.
            events: at most a few thousand; their ids are the ledger's to give.

        Raises:
            UnavailableError: the ledger cannot be reached; they may have been added all the same.
        """
        words = [wire.to_bytes(event) for event in events]
        self._link.append_audit(self._keys.audit, self._keys.audit_writer(self._writer), batch, self._kept, words)

    def page(
        self, wanted: Callable[[AuditEvent], bool], *, before: str = "", limit: int = 50
    ) -> tuple[list[AuditEvent], str]:
        """A page of the trail, newest first, and the cursor of the next one, empty at the end.

        A page may be short, or even empty, before the end: the work for one is bounded.

        Args:
            wanted: says which events are asked for.
            before: the cursor of the page before; empty for the first page.
            limit: events a page, at least 1.

        Raises:
            OutOfRangeError: `before` is not a cursor of the trail.
        """
        cursor, found = before, list[AuditEvent]()
        for _ in range(0, _LOOKED_AT, _ROWS):
            end = f"({_entry(cursor)}" if cursor else "+"
            (rows,) = self._link.run(("XREVRANGE", self._keys.audit, end, "-", "COUNT", _ROWS))
            for entry, fields in rows:
                cursor = _id(entry)
                event = replace(wire.from_bytes(AuditEvent, fields[b"e"]), id=cursor)
                if wanted(event):
                    found.append(event)
                    if len(found) == limit:
                        return found, cursor
            if len(rows) < _ROWS:
                return found, ""
        return found, cursor


def _id(entry: bytes) -> str:
    milliseconds, sequence = entry.split(b"-")
    return f"{int(milliseconds):013}-{int(sequence):06}"


def _entry(cursor: str) -> str:
    found = _ID.fullmatch(cursor)
    if found is None:
        raise OutOfRangeError("that is no cursor of the audit trail")
    return f"{int(found[1])}-{int(found[2])}"
