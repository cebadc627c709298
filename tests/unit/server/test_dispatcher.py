"""The dispatcher on a ledger in memory; the tests play the machines."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from podium.jobs.errors import UnavailableError
from podium.jobs.job import Cause, Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Priority, Resources
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, Leases, MemoryStore, NewJob, Wish
from podium.server.dispatcher import Dispatcher, Sharing, Snapshots

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


class Desk:
    """A dispatcher and what it delivered."""

    def __init__(self, sharing: Sharing = Sharing()) -> None:  # noqa: B008  # frozen
        self.now = datetime(2026, 11, 25, tzinfo=UTC)
        self.store: JobStore = MemoryStore(clock=self.clock, leases=Leases(node=1e6))
        self.delivered: list[tuple[str, str, int]] = []
        self.reachable = True
        self.slow = 0.0
        """Seconds that each delivery takes."""
        self._seconds = 0.0
        self._sharing = sharing
        self.dispatcher = self.another()

    def another(self) -> Dispatcher:
        """A dispatcher of another server."""
        snapshots = Snapshots(self.store, Leases(), self._sharing, self.clock)
        return Dispatcher(self.store, self, snapshots, lambda: self._seconds)

    def clock(self) -> datetime:
        return self.now

    def deliver(self, assignment: Assignment, node: str, slot: int) -> None:
        """See Delivery.deliver."""
        if not self.reachable:
            raise UnavailableError("the queue cannot be reached")
        self._seconds += self.slow
        self.delivered.append((assignment.job_id, node, slot))

    def machine(self, name: str, slots: int, *, pool: str = "default") -> None:
        found = tuple(Slot(index=index) for index in range(slots))
        self.store.heartbeat(Node(id=name, pool=pool, state=NodeState.READY, slots=found, address="10.0.0.1"))

    def submit(
        self, gpus: int = 1, *, project: str = "default", priority: Priority = Priority.NORMAL, **needs: Any
    ) -> str:
        spec = replace(SPEC, resources=Resources(gpus=gpus, **needs), priority=priority)
        return self.store.create(NewJob(project=project, spec=spec, classes=("a", "b")))[0].id

    def end(self, job_id: str) -> None:
        assignment = next(assignment for job, assignment, _ in self.store.holding() if job.id == job_id)
        self.store.begin(assignment)
        self.store.finish(assignment, State.SUCCEEDED, reason="done")

    def stop(self, job_id: str) -> None:
        """What an attempt does that was asked to stop."""
        assignment = next(assignment for job, assignment, _ in self.store.holding() if job.id == job_id)
        assert Wish.PREEMPT is self.store.renew(assignment)
        self.store.recover(assignment, "preempted", cause=Cause.PREEMPTED)

    def states(self, *job_ids: str) -> list[State]:
        return [self.store.get(job_id).state for job_id in job_ids]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_job_of_several_slots_holds_them_all_and_is_delivered_once_to_the_first(desk: Desk) -> None:
    desk.machine("n1", 3)
    single, double = desk.submit(), desk.submit(2)

    assert 2 == desk.dispatcher.dispatch()
    assert [(single, "n1", 0), (double, "n1", 1)] == desk.delivered
    assert (1, 2) == desk.store.get(double).attempts[-1].slots
    assert [single, double, double] == [slot.job_id for slot in desk.store.nodes()[0].slots]


def test_a_large_job_at_the_head_starts_before_the_small_ones_behind_it(desk: Desk) -> None:
    desk.machine("n1", 2)
    first, second = desk.submit(), desk.submit()
    desk.dispatcher.dispatch()
    double, third = desk.submit(2), desk.submit()
    desk.end(first)

    assert 0 == desk.dispatcher.dispatch()
    desk.end(second)
    assert 1 == desk.dispatcher.dispatch()
    assert [State.STARTING, State.QUEUED] == desk.states(double, third)
    desk.end(double)
    assert 1 == desk.dispatcher.dispatch()
    assert [State.STARTING] == desk.states(third)


def test_a_job_that_can_never_fit_waits_until_a_machine_comes_and_holds_nobody_up(desk: Desk) -> None:
    desk.machine("n1", 2)
    huge, single = desk.submit(4), desk.submit()

    assert 1 == desk.dispatcher.dispatch()
    assert [State.QUEUED, State.STARTING] == desk.states(huge, single)
    desk.machine("n2", 4)
    assert 1 == desk.dispatcher.dispatch()
    assert [(single, "n1", 0), (huge, "n2", 0)] == desk.delivered


def test_pools_do_not_wait_for_one_another(desk: Desk) -> None:
    desk.machine("n1", 2)
    desk.machine("o1", 1, pool="other")
    desk.submit()
    desk.dispatcher.dispatch()
    double, elsewhere = desk.submit(2), desk.submit(pool="other")

    assert 1 == desk.dispatcher.dispatch()
    assert [State.QUEUED, State.STARTING] == desk.states(double, elsewhere)


def test_a_job_that_was_cancelled_in_line_is_passed_over(desk: Desk) -> None:
    desk.machine("n1", 2)
    cancelled, double = desk.submit(2), desk.submit(2)
    desk.store.cancel(cancelled, "not needed")

    assert 1 == desk.dispatcher.dispatch()
    assert [State.CANCELLED, State.STARTING] == desk.states(cancelled, double)


def test_a_delivery_that_fails_leaves_the_rest_of_the_line_alone(desk: Desk) -> None:
    desk.machine("n1", 2)
    desk.reachable = False
    jobs = [desk.submit(), desk.submit()]

    assert 2 == desk.dispatcher.dispatch()
    assert [State.STARTING, State.STARTING] == desk.states(*jobs)


def test_a_job_of_several_machines_is_delivered_to_each_of_them(desk: Desk) -> None:
    desk.machine("n1", 2)
    desk.machine("n2", 3)
    gang = desk.submit(2, nodes=2)

    assert 1 == desk.dispatcher.dispatch()
    assert [(gang, "n1", 0), (gang, "n2", 0)] == desk.delivered
    assert ["n1", "n2"] == [member.node for member in desk.store.get(gang).attempts[-1].members]


def test_an_urgent_job_gets_the_slot_of_a_low_one_which_comes_back_when_it_is_done(desk: Desk) -> None:
    desk.machine("n1", 1)
    low = desk.submit(priority=Priority.LOW)
    desk.dispatcher.dispatch()
    urgent = desk.submit(priority=Priority.URGENT)

    assert 0 == desk.dispatcher.dispatch()
    assert 0 == desk.dispatcher.dispatch()
    desk.stop(low)
    assert 1 == desk.dispatcher.dispatch()
    assert [State.QUEUED, State.STARTING] == desk.states(low, urgent)
    assert Cause.PREEMPTED is desk.store.get(low).attempts[-1].cause
    assert 0 == desk.dispatcher.dispatch()
    desk.end(urgent)
    assert 1 == desk.dispatcher.dispatch()
    assert [State.STARTING] == desk.states(low)


def test_a_quota_lends_what_nobody_needs_and_takes_it_back() -> None:
    desk = Desk(Sharing(quotas={"vision": 1, "nlp": 1}))
    desk.machine("n1", 2)
    own = desk.submit(project="vision")
    desk.dispatcher.dispatch()
    desk.now += timedelta(seconds=5)
    lent = desk.submit(project="vision")
    desk.dispatcher.dispatch()
    owner = desk.submit(project="nlp")
    desk.dispatcher.dispatch()
    desk.stop(lent)
    desk.dispatcher.dispatch()

    assert [State.STARTING, State.QUEUED, State.STARTING] == desk.states(own, lent, owner)


def test_a_new_leader_goes_on_from_the_account_of_the_old_one(desk: Desk) -> None:
    desk.machine("n1", 1)
    greedy = desk.submit(project="greedy")
    desk.dispatcher.dispatch()
    desk.now += timedelta(minutes=10)
    desk.dispatcher.dispatch()
    successor = desk.another()
    successor.take_over()
    desk.end(greedy)
    again, modest = desk.submit(project="greedy"), desk.submit(project="modest")

    assert 1 == successor.dispatch()
    assert [State.QUEUED, State.STARTING] == desk.states(again, modest)
    written = desk.store.usage()
    assert written is not None
    assert pytest.approx(600, rel=0.01) == written.seconds["default", "greedy"]


def test_a_job_whose_priority_was_raised_in_line_is_served_accordingly(desk: Desk) -> None:
    desk.machine("n1", 1)
    runs = desk.submit()
    desk.dispatcher.dispatch()
    first, second = desk.submit(), desk.submit()
    desk.dispatcher.dispatch()
    desk.store.update(second, priority=Priority.HIGH, labels={})
    desk.end(runs)
    desk.dispatcher.dispatch()

    assert [State.QUEUED, State.STARTING] == desk.states(first, second)


def test_a_job_that_is_to_wait_for_its_next_attempt_holds_nobody_up_until_then(desk: Desk) -> None:
    desk.machine("n1", 1)
    failing = desk.submit()
    for _ in range(2):
        desk.dispatcher.dispatch()
        ((_, assignment, _),) = desk.store.holding()
        desk.store.recover(assignment, "the process was killed", cause=Cause.INTERNAL)
    other = desk.submit()
    desk.dispatcher.dispatch()

    assert [State.QUEUED, State.STARTING] == desk.states(failing, other)
    desk.end(other)
    assert 0 == desk.dispatcher.dispatch()
    desk.now += timedelta(minutes=2)
    assert 1 == desk.dispatcher.dispatch()
    assert [State.STARTING] == desk.states(failing)


def test_nothing_is_started_before_the_whole_line_is_known(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podium.server.dispatcher._snapshots._MOST_READ", 2)
    desk.machine("n1", 1)
    jobs = [desk.submit() for _ in range(3)]

    assert 0 == desk.dispatcher.dispatch()
    assert 1 == desk.dispatcher.dispatch()
    assert [State.STARTING, State.QUEUED, State.QUEUED] == desk.states(*jobs)


def test_a_pool_that_takes_long_leaves_something_of_each_look_to_the_others() -> None:
    desk = Desk()
    desk.slow = 2.0
    for pool in ("big", "small"):
        desk.machine(pool, 3, pool=pool)
        for _ in range(3):
            desk.submit(pool=pool)
    desk.dispatcher.dispatch()

    assert ["big", "small"] == sorted(node for _, node, _ in desk.delivered)
