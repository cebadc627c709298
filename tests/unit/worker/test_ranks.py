"""What ranks and their attempt say to one another, and what it makes of their ends. No process is started here."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.jobs.errors import NotFoundError, StaleFenceError
from podium.jobs.events import Level
from podium.jobs.job import Cause, Progress
from podium.worker.fit.local import LocalContext
from podium.worker.job_context import Saved, Stopped, StopReason
from podium.worker.rank_context import RankContext
from podium.worker.rank_line import Line
from podium.worker.ranks import RankDied, RankFailed, is_settled, verdict
from podium.worker.switchboard import Switchboard, Word

TWO = ["here", "here"]


def failed(rank: int, text: str = "it broke", *, consequence: bool = False) -> Word:
    message = {
        "cause": "DATA",
        "message": text,
        "remedy": "mend it",
        "traceback": "Traceback",
        "consequence": consequence,
    }
    return Word(rank, "failed", message)


def stopped(rank: int) -> Word:
    return Word(rank, "stopped", {"reason": "cancelled"})


def test_the_error_of_the_first_rank_that_failed_is_the_jobs():
    wrong = verdict([failed(1, "x.png is no image"), failed(0, "later")], {1: 1, 0: 1}, TWO)

    assert isinstance(wrong, RankFailed)
    assert "rank 1 of 2: x.png is no image" == wrong.error.message
    assert (Cause.DATA, "mend it", "Traceback") == (wrong.error.cause, wrong.error.remedy, wrong.error.traceback)


def test_what_a_rank_says_of_the_absence_of_another_is_not_the_cause():
    absence = failed(0, "Connection closed by peer", consequence=True)

    assert "rank 1 of 2: it broke" == str(verdict([absence, failed(1)], {0: 1, 1: 1}, TWO))
    died = verdict([absence, Word(1, "vanished")], {0: 1, 1: -9}, TWO)
    assert isinstance(died, RankDied)
    assert "of rank 1 of 2 was killed by signal 9 (SIGKILL)" == str(died)


def test_a_rank_that_torchrun_ended_because_of_another_is_not_the_cause():
    hung = failed(1, "timed out waiting for rank 0", consequence=True)

    assert "rank 1 of 2: timed out waiting for rank 0" == str(verdict([hung, Word(0, "vanished")], {1: 1}, TWO))


def test_a_rank_that_died_before_its_first_word_is_named_too():
    assert "of rank 1 of 2 ended by itself with exit code 3" == str(verdict([Word(0, "vanished")], {1: 3}, TWO))
    assert isinstance(verdict([], {}, TWO), RankDied)


def test_what_befell_a_rank_is_told_with_its_machine_where_there_are_several():
    nodes = ["n1", "n1", "n2", "n2"]
    absence = failed(0, "Connection closed by peer", consequence=True)

    broke = verdict([absence, failed(3)], {0: 1}, nodes)
    assert isinstance(broke, RankFailed)
    assert ("rank 3 of 4 on n2: it broke", "n2") == (str(broke), broke.node)
    died = verdict([absence, Word(2, "vanished")], {0: 1, 2: -9}, nodes)
    assert isinstance(died, RankDied)
    assert ("of rank 2 of 4 was killed by signal 9 (SIGKILL)", "n2") == (str(died), died.node)


def test_ranks_of_several_machines_that_only_lost_one_another_are_no_fault_of_the_job():
    lost = verdict([failed(0, "Connection reset by peer", consequence=True)], {0: 1}, ["n1", "n2"])

    assert isinstance(lost, RankDied)
    assert ("of rank 0 of 2 lost another one: Connection reset by peer", "n1") == (str(lost), lost.node)


def test_it_is_settled_how_ranks_ended_only_when_the_cause_is_known():
    absence = failed(0, consequence=True)

    assert not is_settled([absence, Word(1, "vanished")], {0: 1})
    assert is_settled([absence, Word(1, "vanished")], {0: 1, 1: -9})
    assert is_settled([absence], {0: 1, 1: 3})
    assert is_settled([absence, failed(1)], {})
    assert is_settled([stopped(0)], {})
    assert not is_settled([stopped(1), Word(2, "done")], {})


@given(st.permutations([failed(1), failed(2, consequence=True), Word(3, "vanished")]), st.integers(0, 3))
def test_what_rank_0_reached_counts_whatever_befell_the_others(others, place):
    assert verdict([*others[:place], Word(0, "done"), *others[place:]], {1: 1, 3: -9}, ["here"] * 4) is None
    end = verdict([*others[:place], stopped(0), *others[place:]], {1: 1, 3: -9}, ["here"] * 4)
    assert isinstance(end, Stopped)
    assert StopReason.CANCELLED is end.reason


class Call:
    """A rank that is a thread of this process, on a real line."""

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.line = Line.to(path)
        self.line.send("hello", rank=rank)
        assert self.line.receive() is not None
        self.context = RankContext(self.line)
        self._thread = threading.Thread(target=self.context.listen)
        self._thread.start()

    def hang_up(self, word: str | None = "done") -> None:
        if word:
            self.line.send(word)
        self.line.end()
        self._thread.join()
        self.line.close()


@pytest.fixture
def local(tmp_path) -> LocalContext:
    return LocalContext(tmp_path / "local")


@pytest.fixture
def board(local, job, images) -> Switchboard:
    return Switchboard(job(images("train")), local)


@pytest.fixture
def call(board, tmp_path) -> Iterator[Call]:
    with board.listening(tmp_path / "line"):
        call = Call(tmp_path / "line")
        yield call
        call.hang_up()


def test_a_rank_has_everything_that_a_job_context_has(call, local):
    rank = call.context
    assert rank.newest() is None
    assert rank.best() is None
    rank.report(3, {"train/loss": float("inf"), "train/learning_rate": 0.1})
    rank.progress(Progress(phase="training", step=3, total_steps=9, fraction=1 / 3))
    rank.log("hello\nworld", Level.WARNING)
    rank.save(3, lambda folder: (folder / "model").write_text("m"), metrics={"val/top1": 0.5}, best=True)

    folder = local.root / "checkpoints" / "000000003"
    saved = Saved(step=3, folder=folder)
    assert (saved, saved, saved) == (rank.newest(), rank.best(), rank.checkpoint("3"))
    assert "m" == (folder / "model").read_text()
    assert {"train/loss": {3: float("inf")}, "train/learning_rate": {3: 0.1}} == local.metrics
    assert ["hello\nworld"] == local.lines
    assert Progress(phase="training", step=3, total_steps=9, fraction=1 / 3) == local.last_progress
    assert (local.features("abc"), local.scratch()) == (rank.features("abc"), rank.scratch())


def test_a_line_of_the_log_is_the_line_of_who_said_it(board, local, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(local, "log", lambda text, level, *, rank=0: heard.append((text, level, rank)))
    with board.listening(tmp_path / "line"):
        for rank in (0, 3):
            call = Call(tmp_path / "line", rank)
            call.context.log(f"of {rank}", Level.ERROR)
            call.context.newest()  # answered after the line was heard
            call.hang_up()

    assert [("of 0", Level.ERROR, 0), ("of 3", Level.ERROR, 3)] == heard


def test_what_the_attempt_cannot_do_is_the_ranks_error(call):
    with pytest.raises(NotFoundError, match="no checkpoint of step 7"):
        call.context.checkpoint("7")


def test_a_checkpoint_that_could_not_be_written_is_not_committed(call, local):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        call.context.save(3, fail, metrics={}, best=False)

    assert local.newest() is None
    assert call.context.newest() is None


def test_the_wish_to_stop_reaches_ranks_that_are_there_and_those_that_come(board, tmp_path):
    with board.listening(tmp_path / "line"):
        early = Call(tmp_path / "line")
        early.context.newest()  # answered: the rank has been let in
        assert early.context.should_stop() is None
        board.pass_on(StopReason.DRAINED)
        late = Call(tmp_path / "line")
        for call in (early, late):
            call.context.newest()  # answers come after what was said before
            assert StopReason.DRAINED is call.context.should_stop()
            call.hang_up()


def test_a_rank_whose_line_ends_without_a_last_word_has_vanished(board, tmp_path):
    with board.listening(tmp_path / "line"):
        Call(tmp_path / "line").hang_up(word=None)

    assert [Word(0, "vanished")] == board.words


def test_a_job_that_was_taken_away_is_not_the_ranks_to_explain(board, local, tmp_path):
    def refuse(*_: object) -> None:
        raise StaleFenceError("a newer attempt holds the job")

    local.report = refuse
    with board.listening(tmp_path / "line"):
        call = Call(tmp_path / "line")
        call.context.report(1, {"train/loss": 1.0})
        call.hang_up()

    assert isinstance(board.broken, StaleFenceError)
