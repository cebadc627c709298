"""What the RQ worker of a slot decides without RQ."""

import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from podium.jobs.job import Job
from podium.jobs.states import State
from podium.jobs.store import Assignment
from podium.worker.processes import GRACE
from podium.worker.spare import Spare
from podium.worker.supervisor import SlotWorker


class Watcher(SlotWorker):
    """A slot's worker with an attempt's process that only remembers being killed."""

    killed = False

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def kill_horse(self, *arguments: object) -> None:
        self.killed = True


def judged(running: Job, *later: Job) -> bool:
    """Whether the attempt of `running` is killed when the job then stands like each of `later`, a grace apart."""
    watcher = Watcher(Assignment(job_id=running.id, attempt=running.attempt, fence=1))
    for number, job in enumerate((running, *later)):
        watcher._end_the_unwanted(job, number * (GRACE + 1.0))
    return watcher.killed


def test_an_attempt_that_hangs_when_it_should_have_left_is_killed_after_its_grace(images, job):
    running = replace(job(images("train")), attempt=2)
    cancelling = replace(running, state=State.CANCELLING)
    replaced = replace(running, attempt=3)

    assert judged(running, cancelling, cancelling)
    assert judged(running, replaced, replaced)
    assert not judged(running, cancelling)
    assert not judged(running, running, running)


def test_a_spare_process_that_died_is_replaced_when_an_attempt_comes():
    worker = Watcher(Assignment(job_id="job-1", attempt=1, fence=1))
    worker.mark = "mark"
    worker.warm_up()
    assert worker._spare is not None
    dead = worker._spare.pid
    os.kill(dead, signal.SIGKILL)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)

    unused: Any = None
    worker.fork_work_horse(unused, unused)
    os.kill(worker.horse_pid, signal.SIGKILL)

    assert worker.horse_pid != dead
    assert (worker.horse_pid, signal.SIGKILL) == os.waitpid(worker.horse_pid, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(dead, 0)


def test_a_spare_process_ends_when_nobody_is_left_to_need_it():
    spare = Spare("mark")
    spare.dismiss()

    assert (spare.pid, 0) == os.waitpid(spare.pid, 0)
