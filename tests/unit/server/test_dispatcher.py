"""The dispatcher on a ledger in memory; the tests play the machines."""

from dataclasses import replace

import pytest

from podium.jobs.errors import UnavailableError
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Resources
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, Leases, MemoryStore, NewJob
from podium.server.dispatcher import Dispatcher, Lookout, Sharing

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


class Desk:
    """A dispatcher and what it delivered."""

    def __init__(self) -> None:
        self.store: JobStore = MemoryStore()
        self.delivered: list[tuple[str, str, int]] = []
        self.reachable = True
        self.dispatcher = Dispatcher(self.store, self, Lookout(self.store, Leases(), Sharing()))

    def deliver(self, assignment: Assignment, node: str, slot: int) -> None:
        """See Delivery.deliver."""
        if not self.reachable:
            raise UnavailableError("the queue cannot be reached")
        self.delivered.append((assignment.job_id, node, slot))

    def machine(self, name: str, slots: int, *, pool: str = "default") -> None:
        self.store.heartbeat(
            Node(id=name, pool=pool, state=NodeState.READY, slots=tuple(Slot(index=index) for index in range(slots)))
        )

    def submit(self, gpus: int = 1, *, pool: str = "default") -> str:
        spec = replace(SPEC, resources=Resources(gpus=gpus, pool=pool))
        return self.store.create(NewJob(project="default", spec=spec, classes=("a", "b")))[0].id

    def end(self, job_id: str) -> None:
        assignment = next(assignment for job, assignment, _ in self.store.holding() if job.id == job_id)
        self.store.begin(assignment)
        self.store.finish(assignment, State.SUCCEEDED, reason="done")

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
