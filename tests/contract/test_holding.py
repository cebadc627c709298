"""Who holds slots: all of them, some of them, and those that fell silent."""

import pytest

from podium.jobs.job import Member, Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Assignment, NewJob
from tests.contract.plays import machine, submit

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


@pytest.fixture
def held(store) -> list[Assignment]:
    """Three jobs on one machine."""
    store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=tuple(map(_slot, range(3)))))
    jobs = [store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))[0] for _ in range(3)]
    return [store.dispatch(job.id, "n1", slot) for slot, job in enumerate(jobs)]


def _slot(index: int) -> Slot:
    return Slot(index=index)


def test_those_who_hold_slots_are_found_by_their_ids(store, held):
    waiting = store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))[0]
    found = store.holding([held[2].job_id, waiting.id, "job-unknown", held[0].job_id])

    assert {held[0], held[2]} == {assignment for _, assignment, _ in found}
    assert [] == list(store.holding([]))


def test_the_jobs_of_one_machine_are_found_each_once_and_those_of_others_are_not(store):
    for name in ("n1", "n2"):
        machine(store, name)
    several, elsewhere, ended = (submit(store).id for _ in range(3))
    store.dispatch(several, "n1", 0, 2, elsewhere=(Member(node="n2", slots=(1,)),))
    store.dispatch(elsewhere, "n2", 0)
    store.finish(store.dispatch(ended, "n1", 1), State.FAILED, reason="wrong")

    assert [several] == list(store.jobs_on("n1"))
    assert sorted([several, elsewhere]) == list(store.jobs_on("n2"))
    assert [] == list(store.jobs_on("n3"))


def test_whose_lease_is_over_is_silent_until_it_is_renewed_or_holds_nothing(world, store, held):
    speaks, _, ends = held
    store.begin(ends)
    world.wait_until(lambda: len(store.silent()) == 3)
    store.renew(speaks)
    store.finish(ends, State.SUCCEEDED, reason="done")

    assert [held[1].job_id] == list(store.silent())
