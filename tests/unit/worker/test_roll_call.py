"""Where the ranks of a stalled attempt are, on this machine and on others, as lines of its log."""

import threading
import time

import pytest

from podium.jobs.events import Level, LogLine
from podium.jobs.job import Attempt, Job, Member
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Resources, Softmax
from podium.jobs.states import State
from podium.jobs.store import Leases
from podium.worker import roll_call
from podium.worker.fit.local import LocalContext
from podium.worker.follower import _hearing
from podium.worker.membership import Membership
from podium.worker.processes import wait_until
from podium.worker.pulse import FOLDER
from podium.worker.rank_line import Line
from podium.worker.rendezvous import Rendezvous
from podium.worker.roll_call import call_roll, hand_over, is_called
from podium.worker.stop import StopFlag
from podium.worker.switchboard import Switchboard


def stalled(*, nodes: int = 1, gpus: int = 1) -> Job:
    """A job on the machines n1, n2, …"""
    others = tuple(Member(node=f"n{number}", slots=(0,)) for number in range(2, nodes + 1))
    spec = JobSpec(
        backbone="resnet18",
        tuning=FullFineTuning(),
        dataset=ImageFolder(train="/data"),
        sorter=Softmax(),
        resources=Resources(nodes=nodes, gpus=gpus),
    )
    attempt = Attempt(number=1, node="n1", slot=0, others=others)
    return Job(id="job-1", project="p", spec=spec, state=State.RUNNING, attempt=1, attempts=(attempt,))


def told(lines: list[LogLine]) -> list[tuple[int, str]]:
    return [(line.rank, line.text) for line in lines]


def test_the_ranks_of_one_machine_are_its_own_lines_and_nobody_else_is_asked(hanging, tmp_path):
    attempt, rank = hanging("attempt"), hanging("rank 1")
    lines = call_roll(tmp_path, stalled(gpus=3))

    named = [one for one in told(lines) if one[1].startswith(("attempt", "rank"))]
    assert [
        (0, f"attempt (process {attempt.pid}):"),
        (0, "rank 0 has not started"),
        (1, f"rank 1 (process {rank.pid}):"),
        (2, "rank 2 has not started"),
    ] == named
    assert {0, 1} == {line.rank for line in lines if "in <module>" in line.text}
    assert {Level.ERROR} == {line.level for line in lines}
    assert not is_called(tmp_path)


def test_an_attempt_without_ranks_speaks_for_itself(hanging, tmp_path):
    process = hanging("attempt")
    lines = told(call_roll(tmp_path, stalled()))

    assert (0, f"attempt (process {process.pid}):") == lines[0]
    assert not [text for _, text in lines if "rank" in text]


def test_machines_that_do_not_answer_hold_nobody_up_and_their_ranks_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(roll_call, "_PATIENCE", 0.5)
    hand_over(tmp_path, 1, {"rank 2": "rank 2 on n2 (process 7):\nhere", "rank 3": "rank 3 on n2 (process 8):\nthere"})
    began = time.monotonic()
    lines = told(call_roll(tmp_path, stalled(nodes=16, gpus=2)))
    seconds = time.monotonic() - began

    assert [(2, "rank 2 on n2 (process 7):"), (2, "here"), (3, "rank 3 on n2 (process 8):"), (3, "there")] == lines[2:6]
    assert [(rank, f"rank {rank} on n3 was not heard from: no answer from n3") for rank in (4, 5)] == lines[6:8]
    assert list(range(6, 32)) == [rank for rank, _ in lines[8:]]
    # All of them together have the patience of one.
    assert seconds < 4


@pytest.mark.parametrize("said", [{}, {"rank 1": ["a", "list"]}, {"rank 0": "I am another's", "attempt": "I am it"}])
def test_a_machine_speaks_for_its_own_ranks_and_in_words(tmp_path, said):
    hand_over(tmp_path, 1, said)

    assert [(0, "rank 0 on n1 has not started"), (1, "rank 1 on n2 has not started")] == told(
        call_roll(tmp_path, stalled(nodes=2))
    )


def test_what_a_machine_says_is_cut_to_what_a_log_can_hold(tmp_path):
    hand_over(tmp_path, 1, {"rank 1": "\ud800" + "x" * 10_000})
    (_, (rank, text)) = told(call_roll(tmp_path, stalled(nodes=2)))

    assert (1, "?" + "x" * 299) == (rank, text)


def test_very_many_ranks_share_the_lines_so_that_each_has_some(tmp_path):
    said = {f"rank {rank}": f"rank {rank}\nCurrent thread" + "\nframe" * 500 for rank in range(50, 100)}
    hand_over(tmp_path, 1, said)
    lines = told(call_roll(tmp_path, stalled(nodes=2, gpus=50)))

    assert list(range(100)) == sorted({rank for rank, _ in lines})
    assert {rank for rank, text in lines if text == "Current thread"} == set(range(50, 100))
    assert len(lines) <= 2000


def test_a_follower_answers_while_it_waits_for_a_ledger_that_is_away(hanging, job, images, tmp_path, monkeypatch):
    head, far = tmp_path / "head", tmp_path / "far"
    head.mkdir()
    far.mkdir()
    monkeypatch.setenv(FOLDER, str(far))
    rank = hanging("rank 1", folder=far)
    membership = Membership(["n2"], StopFlag(), Leases(), folder=head)
    board = Switchboard(job(images("train")), LocalContext(tmp_path / "local"), membership)
    supervisor = threading.Thread(target=lambda: lines.extend(told(call_roll(head, stalled(nodes=2)))))
    lines: list[tuple[int, str]] = []
    with Rendezvous("127.0.0.2") as rendezvous, board.listening(tmp_path / "line", rendezvous):
        line = Line(rendezvous.invitation.call())
        with _hearing(line, "n2") as over:
            line.send("here", node="n2")
            supervisor.start()
            assert wait_until(lambda: is_called(head), 20)
            # This thread is the one that would ask the ledger.
            while supervisor.is_alive():
                board.call_roll()
                supervisor.join(0.1)
            left = over.is_set()

    assert not left
    assert [(0, "rank 0 on n1 has not started"), (1, f"rank 1 on n2 (process {rank.pid}):")] == lines[:2]
    assert any("in <module>" in text for _, text in lines[2:])
