"""Pages of a job's log, the same for every ledger."""

from collections.abc import Iterable

from podium.api.v1.event_pb2 import JobEvent
from podium.jobs.errors import OutOfRangeError
from podium.jobs.store._base import LogPage, StoredEvent, StoredLines


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
