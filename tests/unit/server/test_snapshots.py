"""What is read for a snapshot, and how seldom."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from podium.jobs.job import Job, Node, NodeState, Progress, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Priority
from podium.jobs.store import Assignment, Leases, MemoryStore, NewJob
from podium.server.dispatcher import Sharing, Snapshots

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
LEASES = Leases(node=1e6, starting=60.0, grace=120.0)


class Ledger(MemoryStore):
    """One that notes which jobs are read."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, tzinfo=UTC)
        super().__init__(clock=lambda: self.now, leases=LEASES)
        self.read: list[str] = []

    def known(self, job_ids: Sequence[str]) -> Sequence[Job]:
        self.read += job_ids
        return super().known(job_ids)

    def holding(self, job_ids: Sequence[str] | None = None) -> Sequence[tuple[Job, Assignment, bool]]:
        self.read += job_ids or ()
        return super().holding(job_ids)

    def reads(self) -> list[str]:
        """Since it was asked last."""
        found, self.read = self.read, []
        return found


@pytest.fixture
def ledger() -> Ledger:
    found = Ledger()
    slots = tuple(Slot(index=index) for index in range(2))
    found.heartbeat(Node(id="a", pool="default", state=NodeState.READY, slots=slots))
    return found


@pytest.fixture
def snapshots(ledger: Ledger) -> Snapshots:
    return Snapshots(ledger, LEASES, Sharing(), lambda: ledger.now)


def submit(ledger: Ledger, **changes: int) -> str:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]  # by name
    return ledger.create(NewJob(project="default", spec=spec, classes=("a", "b")))[0].id


def test_a_job_in_line_is_read_once_and_again_when_its_priority_has_changed(ledger, snapshots):
    first, second = submit(ledger), submit(ledger)
    snapshots.look()

    assert [first, second] == ledger.reads()
    snapshots.look()
    assert [] == ledger.reads()
    ledger.update(second, priority=Priority.URGENT, labels={})
    pool = snapshots.look().pools["default"]
    assert [second] == ledger.reads()
    assert [(second, Priority.URGENT.value), (first, Priority.NORMAL.value)] == [
        (job.id, job.rank) for job in pool.waiting
    ]


def test_a_running_job_is_read_when_it_appears_and_then_every_few_seconds(ledger, snapshots):
    job = submit(ledger)
    ledger.begin(ledger.dispatch(job, "a", 0))
    snapshots.look()
    snapshots.look()

    assert [job] == ledger.reads()
    ledger.now += timedelta(seconds=3)
    snapshots.look()
    assert [job] == ledger.reads()


def test_an_end_is_foreseen_from_progress_when_it_comes_and_not_put_off_while_nothing_new_does(ledger, snapshots):
    job = submit(ledger)
    assignment = ledger.dispatch(job, "a", 0)
    ledger.begin(assignment)
    ledger.append(assignment, 1, [Progress(phase="train", eta_seconds=100.0)])
    foreseen = []
    for _ in range(3):
        foreseen.append(snapshots.look().pools["default"].running[job].expected)
        ledger.now += timedelta(seconds=10)

    assert [(ledger.now - timedelta(seconds=30)).timestamp() + 100.0] * 3 == foreseen


def test_a_bound_is_what_is_left_of_the_limit_after_earlier_attempts_and_the_time_to_begin_and_to_stop(
    ledger, snapshots
):
    job = submit(ledger, max_duration_seconds=600)
    assignment = ledger.dispatch(job, "a", 0)
    began = ledger.now
    until = snapshots.look().pools["default"].running[job].until
    ledger.begin(assignment)
    ledger.now += timedelta(seconds=200)
    ledger.recover(assignment, "preempted")
    (waiting,) = snapshots.look().pools["default"].waiting

    assert began.timestamp() + 600 + 60 + 120 == until
    assert 400 + 60 + 120 == waiting.seconds


def test_a_long_line_is_read_in_steps_and_said_not_to_be_complete_until_then(ledger, snapshots, monkeypatch):
    monkeypatch.setattr("podium.server.dispatcher._snapshots._MOST_READ", 2)
    jobs = [submit(ledger) for _ in range(5)]
    looks = [snapshots.look() for _ in range(3)]

    assert [False, False, True] == [look.complete for look in looks]
    assert jobs == ledger.reads()


def test_callers_share_one_look_as_long_as_it_is_fresh(ledger):
    seconds = iter([0.0, 0.0, 0.03, 0.2, 0.4, 0.4, 0.43])
    snapshots = Snapshots(ledger, LEASES, Sharing(), lambda: ledger.now, lambda: next(seconds))
    first = snapshots.recent()  # takes 0.03 s: it is good for ten times as long

    assert first is snapshots.recent()
    assert first is not snapshots.recent()
