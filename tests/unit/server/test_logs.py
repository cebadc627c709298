"""Pages of a log as messages."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from podium.api.v1.log_service_pb2 import ReadLogsRequest
from podium.jobs import wire
from podium.jobs.events import JobEvent, Level, LogBatch, LogLine
from podium.jobs.store import LogPage, StoredLines
from podium.server.services.logs import MOST_LINES, Sieve, responses

LINES = st.builds(LogLine, text=st.text(max_size=5), level=st.sampled_from(Level), rank=st.integers(0, 2))


def page_of(*rows: list[LogLine], first: int = 0, attempt: int = 1) -> LogPage:
    stored, at = [], first
    for lines in rows:
        stored.append(
            StoredLines(offset=at, data=wire.to_bytes(JobEvent(attempt=attempt, payload=LogBatch(lines=tuple(lines)))))
        )
        at += len(lines)
    return LogPage(rows=tuple(stored), oldest_offset=first, end_offset=at, last_sequence=9)


@given(
    rows=st.lists(st.lists(LINES, min_size=1, max_size=5), min_size=1, max_size=5),
    first=st.integers(0, 9),
    skipped=st.integers(0, 4),
    asked=st.fixed_dictionaries(
        {}, optional={"rank": st.integers(0, 2), "min_level": st.integers(0, 4), "attempt": st.integers(0, 2)}
    ),
)
def test_what_is_asked_for_comes_once_in_order_and_the_offset_is_after_the_page(
    rows: list[list[LogLine]], first: int, skipped: int, asked: dict[str, int]
) -> None:
    start = first + min(skipped, len(rows[0]) - 1)
    sieve = Sieve.of(ReadLogsRequest(**asked))  # type: ignore[arg-type]  # numbers are enum values
    found = list(responses(page_of(*rows, first=first), start, sieve))

    wanted = [
        line.text
        for place, line in enumerate((line for row in rows for line in row), first)
        if place >= start
        and asked.get("rank", line.rank) == line.rank
        and line.level.value >= asked.get("min_level", 0)
        and asked.get("attempt", 0) in (0, 1)
    ]
    assert wanted == [line.text for response in found for line in response.lines]
    assert first + sum(map(len, rows)) == found[-1].next_offset
    assert {1} >= {line.attempt for response in found for line in response.lines}


def test_a_message_has_at_most_a_thousand_lines_and_a_mebibyte() -> None:
    many = [LogLine(text="x")] * 1500
    long = [LogLine(text="x" * 10_000)] * 250
    found = list(responses(page_of(many, long), 0, Sieve()))

    assert max(len(response.lines) for response in found) == MOST_LINES
    assert max(response.ByteSize() for response in found) <= 1 << 20
    assert len(many) + len(long) == sum(len(response.lines) for response in found) == found[-1].next_offset
    offsets = [0, *(response.next_offset for response in found)]
    assert [len(response.lines) for response in found] == [after - at for at, after in itertools.pairwise(offsets)]
