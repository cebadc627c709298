"""When an attempt is ended by force."""

from dataclasses import replace
from pathlib import Path

import pytest

from podium.jobs.job import Attempt, Cause, Job, Member
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Softmax
from podium.jobs.states import State
from podium.jobs.store import Assignment
from podium.jobs.store._ledger import utc_now
from podium.worker.pulse import Listener, Pulse
from podium.worker.watchdog import Watchdog

GRACE, STALL = 30.0, 100
JOB = Job(
    id="job-1",
    project="p",
    spec=JobSpec(
        backbone="resnet18",
        tuning=FullFineTuning(),
        dataset=ImageFolder(train="/data"),
        sorter=Softmax(),
        stall_timeout_seconds=STALL,
    ),
    state=State.RUNNING,
    attempt=2,
    attempts=(Attempt(number=1, node="n", slot=0), Attempt(number=2, node="n", slot=0)),
)


class Watch:
    """A watchdog over an attempt, in a time of its own: `pass_time` looks every second."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.pulse = Pulse(folder)
        listener = Listener(folder, clock=lambda: self.now)
        assignment = Assignment(job_id=JOB.id, attempt=2, fence=3)
        self.watchdog = Watchdog(assignment, "n", GRACE, listener, clock=lambda: self.now)

    def pass_time(self, seconds: float, *, beating: bool = True) -> Cause | None:
        """Why the attempt was killed, if it was."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            if beating:
                self.pulse.beat(stepped=True)
            if (ending := self.watchdog.verdict()) is not None:
                return ending.cause
        return None


@pytest.fixture
def watch(tmp_path):
    watch = Watch(tmp_path)
    watch.watchdog.see(JOB)
    return watch


def test_an_attempt_that_gets_on_is_left_alone_for_ever(watch):
    assert watch.pass_time(10_000) is None


@pytest.mark.parametrize(
    "asked",
    [
        replace(JOB, state=State.CANCELLING, stop_time=utc_now()),
        replace(JOB, state=State.PAUSING, stop_time=utc_now()),
        replace(JOB, stop_time=utc_now()),
    ],
    ids=["cancel", "pause", "preempt"],
)
def test_an_attempt_that_was_asked_to_stop_has_its_grace_and_no_more(watch, asked):
    watch.watchdog.see(asked)

    assert watch.pass_time(GRACE) is None
    assert Cause.PREEMPTED is watch.pass_time(2)
    assert watch.watchdog.stopping


def test_asking_again_gives_no_more_time(watch):
    watch.watchdog.ask()
    assert watch.pass_time(GRACE / 2) is None
    watch.watchdog.ask()
    watch.watchdog.see(replace(JOB, state=State.CANCELLING, stop_time=utc_now()))

    assert watch.pass_time(GRACE / 2) is None
    assert Cause.PREEMPTED is watch.pass_time(2)


@pytest.mark.parametrize(
    "later",
    [replace(JOB, state=State.CANCELLED), replace(JOB, state=State.QUEUED), replace(JOB, attempt=3)],
    ids=["cancelled by force", "recovered", "replaced"],
)
def test_an_attempt_that_no_longer_holds_its_job_has_ten_seconds_to_leave(watch, later):
    watch.watchdog.see(later)

    assert watch.pass_time(10) is None
    assert watch.pass_time(2) is not None


def test_a_silent_attempt_is_stalled_after_its_timeout_and_before_its_first_step_after_three(watch, tmp_path):
    assert watch.pass_time(3 * STALL - 2, beating=False) is None
    watch.pulse.beat()
    assert watch.pass_time(3 * STALL, beating=False) is None
    watch.pulse.beat(stepped=True)

    assert watch.pass_time(STALL, beating=False) is None
    assert Cause.STALLED is watch.pass_time(3, beating=False)


def test_a_first_step_that_never_comes_is_a_stall_too(watch):
    assert Cause.STALLED is watch.pass_time(3 * STALL + 2, beating=False)


def test_a_machine_that_slept_or_a_supervisor_that_was_stopped_is_no_stall(watch):
    watch.pass_time(10)
    watch.now += 100_000
    assert watch.watchdog.verdict() is None
    assert watch.pass_time(50) is None


def test_only_the_first_machine_of_several_hears_how_the_attempt_gets_on(tmp_path):
    watch = Watch(tmp_path)
    first = replace(JOB.attempts[-1], node="elsewhere", others=(Member(node="n", slots=(0,)),))
    watch.watchdog.see(replace(JOB, attempts=(JOB.attempts[0], first)))

    assert watch.pass_time(100 * STALL, beating=False) is None
