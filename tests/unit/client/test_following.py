"""What the command does where a reader is too slow for what is kept."""

from collections.abc import Iterator
from typing import Any

import pytest

from podium.client._logs import Log
from podium.client._patience import Patience
from podium.client.cli._board import Board
from podium.client.cli._follow import _events
from podium.client.cli.logs import _batches
from podium.jobs.errors import OutOfRangeError
from podium.jobs.events import JobEvent, LogLine
from podium.jobs.job import Progress


class Handle:
    """A job of whose events only those from the multiples of 10 on are kept by the time that they are asked for."""

    def watch(self, after: int) -> Iterator[JobEvent]:
        if after % 10:
            oldest = after // 10 * 10 + 10
            raise OutOfRangeError("gone", metadata={"oldest_sequence": str(oldest + 1)})
        for sequence in range(after + 1, after + 3):
            yield JobEvent(payload=Progress(phase="training", step=sequence), job_id="job-1", sequence=sequence)
        if after < 20:
            yield from self.watch(after + 2)


def test_a_watch_goes_on_however_often_it_is_too_slow_and_says_what_it_missed(capsys):
    board, handle = Board(), Handle()
    seen = []
    watched: Any = handle
    for event in _events(watched, board):
        board.apply(event)
        seen.append(event.sequence)

    assert [1, 2, 11, 12, 21, 22] == seen
    assert ["events 3 to 10", "events 13 to 20"] == [
        line.partition(" are")[0] for line in capsys.readouterr().err.splitlines()
    ]


def test_a_log_goes_on_however_often_it_is_too_slow_and_says_what_it_missed(capsys):
    def opened(offset: int | None) -> Iterator[tuple[tuple[LogLine, ...], int]]:
        if (offset or 0) % 10:
            raise OutOfRangeError("gone", metadata={"oldest_offset": str((offset or 0) // 10 * 10 + 10)})
        yield (LogLine(text=f"line {offset}"),), (offset or 0) + 1
        if (offset or 0) < 20:
            yield from opened((offset or 0) + 1)

    lines = [line.text for batch in _batches(Log(opened, 0, Patience(1))) for line in batch]

    assert ["line 0", "line 10", "line 20"] == lines
    assert ["lines 1 to 9", "lines 11 to 19"] == [
        line.partition(" are")[0] for line in capsys.readouterr().err.splitlines()
    ]


def test_what_is_out_of_range_for_another_reason_ends_it():
    class Future:
        def watch(self, after: int) -> Iterator[JobEvent]:
            raise OutOfRangeError("in the future", metadata={"oldest_sequence": "1"})

    watched: Any = Future()
    with pytest.raises(OutOfRangeError):
        list(_events(watched, Board()))
