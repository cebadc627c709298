"""A job's log: how much of it is kept, and pages of it, the same for every ledger."""

from collections.abc import Iterable
from dataclasses import replace

from podium.api.v1.event_pb2 import JobEvent
from podium.jobs.errors import OutOfRangeError
from podium.jobs.events import LogBatch
from podium.jobs.store._record import Change
from podium.jobs.store._terms import LogPage, StoredEvent, StoredLines

#: The log of a job is dropped in parts of this share of what is kept.
_PARTS = 8
#: What a line costs beside its text, in bytes.
_LINE = 32


def lines_in(data: bytes) -> int:
    """The lines in an event; none in one that has no log."""
    return len(JobEvent.FromString(data).log.lines)


def a_page(counted: Iterable[tuple[int, StoredEvent]], *, last_sequence: int, offset: int, limit: int) -> LogPage:
    """A page of a log that is read from its beginning.

    Args:
        counted: its rows, each with the offset of its first line.
        last_sequence: of the job.
        offset: the line to begin with.
        limit: rows, at most.
    """
    found: list[StoredLines] = []
    oldest, end = None, 0
    for first, row in counted:
        oldest = first if oldest is None else oldest
        end = first + lines_in(row.data)
        if end > offset and len(found) < limit:
            found.append(StoredLines(offset=first, data=row.data))
    return LogPage(rows=tuple(found), oldest_offset=oldest or 0, end_offset=end, last_sequence=last_sequence)


def check_lines_kept(job_id: str, page: LogPage, offset: int | None) -> LogPage:
    """The page, if the lines that were asked for are kept.

    Raises:
        OutOfRangeError: they are not, or `offset` lies in the future.
    """
    if offset is None or page.oldest_offset <= offset <= page.end_offset:
        return page
    raise OutOfRangeError(
        f"the log of {job_id} is not there from line {offset} on: kept are {page.oldest_offset} to {page.end_offset}; "
        f"read again from offset {page.oldest_offset}",
        metadata={"oldest_offset": str(page.oldest_offset), "end_offset": str(page.end_offset)},
    )


def logged(change: Change, kept: int) -> Change:
    """The change with its lines counted, and with no more than `kept` bytes of the job's log."""
    batches = [(at, event.payload) for at, event in change.numbered if isinstance(event.payload, LogBatch)]
    if not batches:
        return change
    record, parts = change.record, list(change.record.log_parts)
    for sequence, batch in batches:
        size = sum(len(line.text.encode()) + _LINE for line in batch.lines)
        if parts and parts[-1][1] < kept // _PARTS:
            size, sequence = parts[-1][1] + size, parts.pop()[0]
        parts.append((sequence, size))
    while len(parts) > 1 and sum(size for _, size in parts) > kept:
        del parts[0]
    new = sum(len(batch.lines) for _, batch in batches)
    lines = None if record.lines is None else record.lines + new
    return replace(change, record=replace(record, lines=lines, log_parts=tuple(parts)))
