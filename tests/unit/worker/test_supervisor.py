"""What the supervisor of a slot does for the next attempt, without RQ."""

import os
import signal
from pathlib import Path

import pytest

from podium.jobs.store import Assignment
from podium.worker.noticeboard import Noticeboard
from podium.worker.spare import Spare
from podium.worker.supervisor import SlotWorker

ASSIGNMENT = Assignment(job_id="job-1", attempt=1, fence=1)


class Worker(SlotWorker):
    """A slot's worker that has no queue."""

    def __init__(self, folder: Path) -> None:
        self.mark, self.board = "mark", Noticeboard(folder)


def test_a_spare_process_that_died_is_replaced_when_an_attempt_comes(tmp_path):
    worker = Worker(tmp_path)
    worker.warm_up()
    assert worker._spare is not None
    dead = worker._spare.pid
    os.kill(dead, signal.SIGKILL)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)

    started = worker._started(ASSIGNMENT)
    os.kill(started.pid, signal.SIGKILL)

    assert started.pid != dead
    assert (started.pid, signal.SIGKILL) == os.waitpid(started.pid, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(dead, 0)


def test_a_spare_process_ends_when_nobody_is_left_to_need_it(tmp_path):
    spare = Spare("mark", tmp_path)
    spare.dismiss()

    assert (spare.pid, 0) == os.waitpid(spare.pid, 0)
