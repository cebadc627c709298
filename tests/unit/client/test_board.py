from datetime import UTC, datetime, timedelta

import pytest

from podium.client import (
    ImageFolder,
    Job,
    JobEvent,
    JobSpec,
    LinearHead,
    MetricBatch,
    Progress,
    QueueInfo,
    Softmax,
    State,
)
from podium.client.cli._board import Board
from podium.client.cli._lines import Lines
from podium.client.cli._text import ago, clock, count, duration, evaluated_splits, k_distribution, printable, until
from podium.jobs.events import LogBatch, LogLine, StateChange

SPEC = JobSpec(backbone="x", tuning=LinearHead(), dataset=ImageFolder(train="/x"), sorter=Softmax())
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def running(sequence: int) -> JobEvent:
    return JobEvent(payload=Job(id="job-1", project="default", spec=SPEC, state=State.RUNNING, sequence=sequence))


def queued(queue: QueueInfo) -> Job:
    return Job(id="job-1", project="default", spec=SPEC, state=State.QUEUED, queue=queue)


def test_the_past_that_follows_a_snapshot_moves_nothing_back():
    board = Board()

    board.apply(running(9))
    board.apply(JobEvent(sequence=1, payload=StateChange(to_state=State.QUEUED)))
    board.apply(JobEvent(sequence=8, payload=Progress(phase="loading")))

    assert board.job is not None
    assert (State.RUNNING, None) == (board.job.state, board.job.progress)
    assert 8 == board.sequence


def test_what_comes_after_the_snapshot_moves_the_job():
    board = Board()

    board.apply(running(9))
    board.apply(JobEvent(sequence=10, attempt=2, payload=Progress(phase="training", step=3)))
    board.apply(JobEvent(sequence=11, payload=StateChange(to_state=State.SUCCEEDED, reason="done")))

    assert board.job is not None
    assert (State.SUCCEEDED, True, 2) == (board.job.state, board.job.terminal, board.job.attempt)
    assert board.job.progress is not None


def test_a_job_that_comes_back_to_the_queue_does_not_wait_for_what_it_waited_for_before():
    board = Board()

    board.apply(JobEvent(payload=queued(QueueInfo(position=1, wait_reason="about to start"))))
    board.apply(JobEvent(sequence=2, payload=StateChange(to_state=State.QUEUED, reason="preempted")))

    assert board.queue is None
    assert board.job is not None
    assert "preempted" == board.job.state_reason


def test_the_newest_number_and_the_last_lines_are_kept():
    board = Board(lines=2)

    for step in (0, 5):
        board.apply(JobEvent(sequence=step + 1, payload=MetricBatch.at(step, {"val/top1": step / 10})))
    board.apply(JobEvent(sequence=7, payload=LogBatch(lines=tuple(LogLine(text=text) for text in "abc"))))

    assert ({"val/top1": 0.5}, {"val/top1": 5}) == (board.numbers, board.steps)
    assert ["b", "c"] == [line.text for line in board.lines]


def test_every_split_that_was_evaluated_has_its_line_and_its_row_validation_first():
    metrics = {"test/top1": 0.5, "val/top1": 0.4, "train/loss": 1.0, "test_at_best_top5/top1": 0.6, "data/wait": 0.1}

    lines = Lines().of(JobEvent(payload=MetricBatch.at(9, metrics)))

    assert ["val", "test", "test_at_best_top5"] == evaluated_splits(metrics)
    assert {"step 9 val: top1 40.0 %", "step 9 test: top1 50.0 %", "step 9 test_at_best_top5: top1 60.0 %"} == set(
        lines
    )


def test_progress_is_told_every_ten_seconds_and_when_a_new_phase_begins():
    lines = Lines()

    def told(second: int, phase: str) -> int:
        return len(lines.of(JobEvent(time=NOON + timedelta(seconds=second), payload=Progress(phase=phase))))

    assert [1, 0, 0, 1, 1, 0] == [told(0, "a"), told(1, "a"), told(9, "a"), told(11, "a"), told(12, "b"), told(13, "a")]


def test_who_follows_a_paused_job_is_told_so_and_how_it_goes_on():
    pausing, paused = (
        Lines().of(JobEvent(job_id="job-1", payload=StateChange(to_state=state, reason="lunch")))
        for state in (State.PAUSING, State.PAUSED)
    )
    [snapshot] = Lines().of(JobEvent(payload=Job(id="job-1", project="p", spec=SPEC, state=State.PAUSED)))

    assert ["now PAUSING: lunch"] == pausing
    assert ["now PAUSED: lunch; `podium resume job-1` lets it go on"] == paused
    assert "job-1 is PAUSED (`podium resume job-1` lets it go on)" == snapshot


def test_who_follows_a_queued_job_is_told_first_what_it_waits_for():
    lines = Lines().of(JobEvent(payload=queued(QueueInfo(position=2, wait_reason="waiting for a free slot"))))

    assert ["job-1 is QUEUED (waiting for a free slot)"] == lines


def test_a_line_cannot_steer_the_terminal():
    [line] = Lines().of(JobEvent(payload=LogBatch(lines=(LogLine(text="\x1b[2Jhello\x07"),))))

    assert "\N{REPLACEMENT CHARACTER}[2Jhello\N{REPLACEMENT CHARACTER}" == line
    assert "ä\tb" == printable("ä\tb")


def test_values_read_well():
    assert ("0:07", "1:15", "2:00:01") == (duration(7.2), duration(75), duration(7201))
    assert ("5 s", "3 min", "2 d") == tuple(ago(NOON, NOON + timedelta(seconds=s)) for s in (5, 200, 2 * 86400))
    assert ("999", "5.3 M") == (count(999), count(5_288_548))
    assert "½ top-1 + ½ top-5" == k_distribution({5: 0.5, 1: 0.5, 7: 0.0})


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "within a minute"), (59, "within a minute"), (740, "in about 12 min"), (5400, "in about 2 h")],
)
def test_what_is_ahead_is_told_in_one_unit(seconds, told):
    assert told == until(NOON + timedelta(seconds=seconds), NOON)


def test_a_time_of_another_day_is_told_with_its_date():
    at = datetime(2026, 1, 1, 14, 2, 11).astimezone()

    assert "14:02:11" == clock(at, at + timedelta(hours=1))
    assert "Jan 1 14:02:11" == clock(at, at + timedelta(days=1))
