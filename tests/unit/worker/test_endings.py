"""How an attempt ends that does not end its job, and what the ledger makes of it. The trainer does as told."""

import errno
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.job import Cause, Job, JobError, Node, NodeState, Slot
from podium.jobs.settings import Settings
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Softmax
from podium.jobs.states import State
from podium.jobs.store import Leases, MemoryStore, NewJob
from podium.worker.attempt import PAUSED, PREEMPTED, Attempt
from podium.worker.job_context import JobContext, StopReason, obey
from podium.worker.stop import StopFlag

_SPEC = JobSpec(backbone="resnet18", tuning=FullFineTuning(), dataset=ImageFolder(train="/data"), sorter=Softmax())


class Refused(Exception):
    """Carries what the user is to be told."""


class Site:
    """A machine and a job, in a time of their own; this module is the trainer, and does `work`."""

    def __init__(self, root: Path) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = MemoryStore(clock=lambda: self.now)
        self.artifacts = ArtifactStore(str(root))
        self.settings = Settings(redis_url="", redis_password=None, artifacts=str(root), data_roots=(), leases=Leases())
        self.job = self.store.create(NewJob(project="p", spec=_SPEC, classes=("a", "b")))[0]

    def run(self, work: Callable[[JobContext], None], reason: StopReason | None = None) -> Job:
        """One attempt, a minute later than anything before."""
        global _work
        _work = work
        self.now += timedelta(minutes=1)
        self.store.heartbeat(Node(id="n", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
        stop, assignment = StopFlag(), self.store.dispatch(self.job.id, "n", 0)
        if reason is not None:
            stop.request(reason)
        Attempt(self.store, self.artifacts, assignment, self.settings, stop, threads=1).run()
        return self.store.get(self.job.id)


_work: Callable[[JobContext], None] = obey


def run(job: Job, context: JobContext, *, threads: int) -> None:
    """Of the trainer."""
    _work(context)


def describe(error: BaseException) -> JobError:
    """Of the trainer."""
    cause = error.args[0] if isinstance(error, Refused) else Cause.STORAGE
    return JobError(cause=cause, message=f"it was {cause.name}", traceback="Traceback\n  line 1")


def failing(cause: Cause) -> Callable[[JobContext], None]:
    def work(context: JobContext) -> None:
        raise Refused(cause)

    return work


def saving(context: JobContext) -> None:
    context.save(1, lambda folder: (folder / "state").touch(), metrics={}, best=False)
    raise Refused(Cause.STORAGE)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "the_tests_own_trainer", sys.modules[__name__])
    monkeypatch.setenv("PODIUM_TRAINER", "the_tests_own_trainer")
    return Site(tmp_path)


def test_an_obeyed_preemption_is_not_charged_however_often_it_comes(site):
    for _ in range(30):
        back = site.run(obey, StopReason.PREEMPTED)

    assert State.QUEUED is back.state
    assert back.retry_time is None
    assert {(PREEMPTED, Cause.PREEMPTED)} == {(attempt.outcome, attempt.cause) for attempt in back.attempts}


def test_a_job_that_was_paused_before_its_attempt_came_is_paused_without_training(site):
    dispatch = site.store.dispatch

    def paused_at_once(*arguments):
        assignment = dispatch(*arguments)
        site.store.pause(site.job.id, "on second thoughts")
        return assignment

    site.store.dispatch = paused_at_once
    job = site.run(obey)

    assert (State.PAUSED, PAUSED, None) == (job.state, job.attempts[0].outcome, job.attempts[0].cause)


def test_a_storage_that_fails_is_tried_four_times_and_then_told_to_the_user(site):
    jobs = [site.run(failing(Cause.STORAGE)) for _ in range(4)]

    assert [State.QUEUED] * 3 + [State.FAILED] == [job.state for job in jobs]
    assert all(job.retry_time > site.now - timedelta(minutes=5) for job in jobs[:3])
    assert Cause.STORAGE is jobs[-1].error.cause


def test_a_machine_whose_hardware_failed_twice_gets_no_more_jobs(site):
    first = site.run(failing(Cause.NODE_LOST))
    (once,) = site.store.nodes()
    second = site.run(failing(Cause.NODE_LOST))
    (twice,) = site.store.nodes()

    assert [State.QUEUED, State.QUEUED] == [first.state, second.state]
    assert [NodeState.READY, NodeState.EXCLUDED] == [once.state, twice.state]


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause not in (Cause.STORAGE, Cause.NODE_LOST)])
def test_what_the_trainer_says_of_the_job_itself_is_never_tried_again(site, cause):
    job = site.run(failing(cause))

    assert (State.FAILED, cause) == (job.state, job.error.cause)
    assert 1 == len(job.attempts)


def test_a_storage_without_anything_of_the_job_is_no_reason_to_begin_again(site, tmp_path):
    site.run(saving)
    jobs = tmp_path / "jobs"
    jobs.rename(tmp_path / "not mounted")
    lost = site.run(obey)
    (tmp_path / "not mounted").rename(jobs)
    found = site.run(obey)

    assert (State.QUEUED, Cause.STORAGE) == (lost.state, lost.attempts[1].cause)
    assert "is that the right place?" in lost.attempts[1].outcome
    assert 1 == len(site.store.checkpoints(site.job.id))
    assert (State.SUCCEEDED, 1) == (found.state, found.attempts[2].resumed_from_step)


def test_a_storage_that_cannot_be_read_for_a_while_costs_no_checkpoint(site, monkeypatch):
    site.run(saving)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _refusing(os.open))
        refused = site.run(obey)
    found = site.run(obey)

    assert (State.QUEUED, Cause.STORAGE) == (refused.state, refused.attempts[1].cause)
    assert "Input/output error" in refused.attempts[1].outcome
    assert 1 == len(site.store.checkpoints(site.job.id))
    assert (State.SUCCEEDED, 1) == (found.state, found.attempts[2].resumed_from_step)


def test_an_attempt_is_heard_from_while_it_reads_the_checkpoint_that_it_goes_on_from(site, monkeypatch):
    site.run(saving)
    renew, verify = site.store.renew, site.artifacts.verify
    heard, states = threading.Event(), []

    def heard_from(assignment):
        states.append(site.store.get(site.job.id).state)
        wish = renew(assignment)
        heard.set()
        return wish

    def slowly(manifest):
        heard.clear()
        assert heard.wait(timeout=30)
        verify(manifest)

    monkeypatch.setattr(site.store, "renew", heard_from)
    monkeypatch.setattr(site.artifacts, "verify", slowly)
    done = site.run(obey)

    assert State.STARTING in states
    assert (State.SUCCEEDED, 1) == (done.state, done.attempts[1].resumed_from_step)


def _refusing(opened: Callable[..., int]) -> Callable[..., int]:
    """`os.open` on a disk that does not give a checkpoint's bytes."""

    def refuse(path: str | Path, flags: int, *arguments: int, **options: int) -> int:
        if Path(path).name == "state" and not flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, flags, *arguments, **options)

    return refuse
