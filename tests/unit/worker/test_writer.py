import threading
from collections.abc import Sequence
from typing import Any

import pytest

from podium.jobs import wire
from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.events import LogLine, merge_metrics
from podium.jobs.job import Progress
from podium.jobs.store import Assignment
from podium.worker.job_context import StopReason
from podium.worker.stop import StopFlag
from podium.worker.writer import Writer

ASSIGNMENT = Assignment(job_id="job-1", attempt=1, fence=1)


class Ledger:
    """Keeps what is appended, as a ledger does; can be away, lose an answer, or know a newer attempt."""

    def __init__(self) -> None:
        self.batches: dict[int, list[Any]] = {}
        self.away = 0
        self.lose_answers = 0
        self.stale = False

    def append(self, assignment: Assignment, batch: int, payloads: Sequence[Any]) -> int:
        if self.stale:
            raise StaleFenceError("a newer attempt holds the job")
        if self.away:
            self.away -= 1
            raise UnavailableError("away")
        self.batches.setdefault(batch, list(payloads))
        if self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("the answer was lost")
        return len(self.batches)

    def payloads(self) -> list[Any]:
        return [payload for batch in sorted(self.batches) for payload in self.batches[batch]]

    def points(self) -> dict[str, dict[int, float]]:
        return merge_metrics([(1, payload) for payload in self.payloads() if hasattr(payload, "series")])


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def stop():
    return StopFlag()


@pytest.fixture
def writer(ledger, stop):
    writer = Writer(ledger, ASSIGNMENT, stop)
    yield writer
    writer.close()


def test_many_points_become_few_writes(ledger, writer):
    for step in range(1000):
        writer.metrics(step, {"loss": step / 2, "rate": 1.0})
    writer.flush()

    assert {
        "loss": {step: step / 2 for step in range(1000)},
        "rate": dict.fromkeys(range(1000), 1.0),
    } == ledger.points()
    assert len(ledger.batches) < 20


def test_very_many_points_do_not_wait_for_the_interval(monkeypatch, stop):
    monkeypatch.setattr("podium.worker.writer._INTERVAL", 3600)
    written = threading.Event()

    class Loud(Ledger):
        def append(self, assignment: Assignment, batch: int, payloads: Sequence[Any]) -> int:
            written.set()
            return super().append(assignment, batch, payloads)

    loud: Any = Loud()
    writer = Writer(loud, ASSIGNMENT, stop)
    for step in range(250):
        writer.metrics(step, {"loss": 1.0, "rate": 1.0})

    assert written.wait(20)
    writer.close()


def test_an_outage_delays_points_and_loses_none(ledger, writer):
    ledger.away = 3
    for step in range(100):
        writer.metrics(step, {"loss": 1.0})
    writer.flush()

    assert list(range(100)) == sorted(ledger.points()["loss"])


def test_no_event_is_too_large_for_a_watcher_however_many_points_waited(ledger, writer):
    ledger.away = 10**9
    wanted = [f"m{number}" for number in range(60)]
    for step in range(2000):
        writer.metrics(step, dict.fromkeys(wanted, step / 2))
    for step in range(60_000):
        writer.metrics(step, {"long": 1.0})
    ledger.away = 0
    writer.flush()

    assert max(wire.to_proto(payload).ByteSize() for payload in ledger.payloads()) < 1 << 20
    points = {step: step / 2 for step in range(2000)}
    assert {**dict.fromkeys(wanted, points), "long": dict.fromkeys(range(60_000), 1.0)} == ledger.points()


def test_a_lost_answer_doubles_nothing(ledger, writer):
    ledger.lose_answers = 1
    writer.line(LogLine(text="once"))
    writer.flush()
    writer.line(LogLine(text="twice"))
    writer.flush()

    assert ["once", "twice"] == [line.text for payload in ledger.payloads() for line in payload.lines]


def test_only_the_newest_progress_is_written(ledger, writer):
    for step in range(10):
        writer.progress(Progress(phase="training", step=step))
    writer.flush()

    assert Progress(phase="training", step=9) == ledger.payloads()[-1]


def test_a_checkpoint_is_registered_after_the_points_before_it(ledger, writer):
    seen = []
    writer.metrics(1, {"loss": 1.0})
    writer.then(lambda: seen.append(ledger.points()))
    writer.metrics(2, {"loss": 2.0})
    writer.flush()

    assert [{"loss": {1: 1.0}}] == seen
    assert {"loss": {1: 1.0, 2: 2.0}} == ledger.points()


def test_a_stale_fence_stops_the_attempt_and_the_next_flush_says_so(ledger, writer, stop):
    ledger.stale = True
    writer.metrics(1, {"loss": 1.0})
    with pytest.raises(StaleFenceError):
        writer.flush()

    assert StopReason.FENCED is stop.reason
    assert {} == ledger.batches


def test_what_is_not_flushed_is_written_soon_anyway(ledger, writer):
    written = threading.Event()

    class Loud(Ledger):
        def append(self, *arguments: Any) -> int:
            written.set()
            return 1

    ledger.__class__ = Loud
    writer.metrics(1, {"loss": 1.0})

    assert written.wait(10)


def test_closing_during_an_outage_does_not_hang(ledger, writer):
    ledger.away = 10**9
    writer.metrics(1, {"loss": 1.0})
    writer.close()

    assert {} == ledger.batches


def test_a_write_that_cannot_succeed_ends_the_work_instead_of_losing_its_points(writer):
    def refuse() -> None:
        raise PermissionError("the disk is not ours")

    writer.then(refuse)
    with pytest.raises(PermissionError):
        writer.flush()

    with pytest.raises(PermissionError):
        writer.metrics(2, {"train/loss": 1.0})


def test_lines_are_written_in_pieces_that_no_reader_chokes_on(writer, ledger):
    for at in range(1200):
        writer.line(LogLine(text=f"{at}"))
    writer.line(LogLine(text="x" * 50_000))
    writer.flush()

    batches = [payload.lines for payload in ledger.payloads()]
    texts = [line.text for lines in batches for line in lines]
    assert [str(at) for at in range(1200)] == texts[:-1]
    assert f"{'x' * 10_000} … and 40000 characters more" == texts[-1]
    assert max(map(len, batches)) <= 500
