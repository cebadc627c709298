"""What the supervisor of a slot does for the next attempt, without RQ."""

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from podium.jobs.delivery import FUNCTION, payload
from podium.jobs.job import Cause, Member, Node, NodeState, Slot
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Resources, Softmax
from podium.jobs.states import State
from podium.jobs.store import Assignment, MemoryStore, NewJob
from podium.worker.attempt_process import AttemptProcess
from podium.worker.noticeboard import Noticeboard
from podium.worker.processes import wait_until
from podium.worker.spare import Spare
from podium.worker.supervisor import Delivery, Refused, SlotWorker, assignment_of
from podium.worker.watchdog import Ending

ASSIGNMENT = Assignment(job_id="job-1", attempt=1, fence=1)


def delivery(
    function: str = FUNCTION, arguments: tuple[str, ...] = (), named: dict[str, Any] | None = None
) -> Delivery:
    # Nothing of this asks Redis anything.
    given = payload(ASSIGNMENT) if named is None else named
    made: Delivery = Delivery.create(function, arguments, given, connection=redis.Redis(), serializer="json")  # type: ignore[assignment]  # RQ says its own class, whoever calls
    return made


def test_a_delivery_is_read_and_nothing_of_it_is_called_or_tried_again():
    ours = delivery()

    assert ASSIGNMENT == assignment_of(ours)
    assert not ours.should_retry
    with pytest.raises(Refused):
        ours.func  # noqa: B018  # to look it up is the whole of the test


@pytest.mark.parametrize(
    "stranger",
    [
        delivery("os.system", ("touch trap",), {}),
        delivery(FUNCTION, ("job-1",)),
        delivery(FUNCTION, (), {"job_id": "job-1", "attempt": 1}),
        delivery(FUNCTION, (), payload(ASSIGNMENT) | {"fence": "1"}),
        delivery(FUNCTION, (), payload(ASSIGNMENT) | {"attempt": True}),
        delivery(FUNCTION, (), payload(ASSIGNMENT) | {"job_id": ["job-1"]}),
    ],
)
def test_what_is_not_exactly_an_attempt_is_refused(stranger):
    with pytest.raises(Refused):
        assignment_of(stranger)


class Worker(SlotWorker):
    """A slot's worker that has no queue."""

    def __init__(self, folder: Path) -> None:
        self.node, self.slot, self.mark, self.board = "n", 0, "mark", Noticeboard(folder)


def test_a_slot_in_trouble_gives_a_job_back_that_came_all_the_same_and_charges_nobody(tmp_path):
    worker, store = Worker(tmp_path), MemoryStore()
    store.heartbeat(Node(id="n", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
    spec = JobSpec(backbone="resnet18", tuning=FullFineTuning(), dataset=ImageFolder(train="/data"), sorter=Softmax())
    job, _ = store.create(NewJob(project="p", spec=spec, classes=("a", "b")))
    worker.store = store
    worker.board.warn(0, "12.3 of 79.6 GiB are held by others on GPU-a")
    worker._run(delivery(), None, store.dispatch(job.id, "n", 0))
    back = store.get(job.id)

    assert (State.QUEUED, Cause.PREEMPTED, None) == (back.state, back.attempts[0].cause, back.retry_time)
    assert "slot 0 of n: 12.3 of 79.6 GiB are held by others on GPU-a" == back.attempts[0].outcome


def test_so_does_one_whose_job_was_to_have_a_second_slot_that_is_in_trouble(tmp_path):
    worker, store = Worker(tmp_path), MemoryStore()
    spec = JobSpec(backbone="resnet18", tuning=FullFineTuning(), dataset=ImageFolder(train="/data"), sorter=Softmax())
    job, _ = store.create(NewJob(project="p", spec=spec, classes=("a", "b")))
    worker.store = store
    worker.board.warn(3, "nvidia-smi no longer lists GPU-d")
    worker._run(delivery(), None, store.dispatch(job.id, "n", 0, 3))
    back = store.get(job.id)

    assert (State.QUEUED, Cause.PREEMPTED) == (back.state, back.attempts[0].cause)
    assert "slot 3 of n: nvidia-smi no longer lists GPU-d" == back.attempts[0].outcome


def test_an_attempt_begins_when_the_one_that_lost_its_slot_has_left_it(tmp_path, monkeypatch):
    worker, store = Worker(tmp_path), MemoryStore()
    spec = JobSpec(backbone="resnet18", tuning=FullFineTuning(), dataset=ImageFolder(train="/data"), sorter=Softmax())
    job, _ = store.create(NewJob(project="p", spec=spec, classes=("a", "b")))
    worker.store = store
    # Cancelled by force, it held slots 1 and 0, and is still saving what nobody wants.
    worker.board.occupy(1, (1, 0))
    seen = []

    class Started(Exception):
        pass

    def started(assignment: Assignment) -> Spare:
        seen.append(sorted(worker.board.occupied()))
        raise Started

    monkeypatch.setattr(worker, "_started", started)
    leaving = threading.Timer(0.3, lambda: worker.board.vacate(1))
    leaving.start()
    with pytest.raises(Started):
        worker._run(delivery(), None, store.dispatch(job.id, "n", 0))
    leaving.join()

    assert [[0]] == seen


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


def test_an_attempt_that_stalls_ends_even_where_nobody_can_say_where_it_hangs(tmp_path, monkeypatch):
    store = MemoryStore()
    spec = JobSpec(
        backbone="resnet18",
        tuning=FullFineTuning(),
        dataset=ImageFolder(train="/data"),
        sorter=Softmax(),
        resources=Resources(nodes=2),
    )
    job, _ = store.create(NewJob(project="p", spec=spec, classes=("a", "b")))
    assignment = store.dispatch(job.id, "n", 0, elsewhere=[Member(node="n2", slots=(0,))])
    spare = Spare("mark", tmp_path)
    # Without its folder it would not come up, but end by itself.
    assert wait_until(lambda: bool(list(spare.folder.glob("stacks-*"))), 60)
    attempt = AttemptProcess(spare, assignment, store, node="n", grace=1.0)
    monkeypatch.setattr(attempt._watchdog, "verdict", lambda: Ending(cause=Cause.STALLED, outcome="stalled"))
    monkeypatch.setattr("podium.worker.attempt_process.kill", lambda processes: None)  # the test's own are not below it
    shutil.rmtree(spare.folder)  # so nobody can be asked
    attempt.attend(meanwhile=lambda seconds: None, spared=lambda: None)
    spare.dismiss()
    back = store.get(job.id)

    assert (State.QUEUED, Cause.STALLED) == (back.state, back.attempts[0].cause)
    with pytest.raises(ProcessLookupError):
        os.kill(spare.pid, 0)


def test_who_asks_an_attempt_that_has_ended_signals_no_stranger_that_has_its_number_now(tmp_path, monkeypatch):
    spare, signalled = Spare("mark", tmp_path), []
    spare.dismiss()
    attempt = AttemptProcess(spare, ASSIGNMENT, MemoryStore(), node="n", grace=1.0)
    monkeypatch.setattr("podium.worker.attempt_process.kill", lambda processes: None)  # the test's own are not below it
    attempt.attend(meanwhile=lambda seconds: None, spared=lambda: None)
    monkeypatch.setattr(os, "kill", lambda *arguments: signalled.append(arguments))
    attempt.ask()

    assert [] == signalled
