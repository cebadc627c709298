"""Jobs of several machines, in every ledger: all slots or none, and where the machines meet."""

import pytest

from podium.jobs.errors import FailedPreconditionError, StaleFenceError
from podium.jobs.job import Member
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore
from tests.contract.plays import machine, slots_of, start, submit

ELSEWHERE = (Member(node="n2", slots=(1, 0)), Member(node="n3", slots=(2, 1)))


@pytest.fixture(autouse=True)
def _machines(store) -> None:
    for name in ("n1", "n2", "n3"):
        machine(store, name)


def spread(store: JobStore) -> Assignment:
    """A job on two slots of each of three machines."""
    return store.dispatch(submit(store).id, "n1", 0, 1, elsewhere=ELSEWHERE)


def shown(store: JobStore) -> list[list[str]]:
    return [slots_of(store, name) for name in ("n1", "n2", "n3")]


EMPTY = [["", "", ""]] * 3


def test_it_holds_slots_of_all_of_them(store) -> None:
    mine = spread(store).job_id
    job = store.get(mine)

    assert [[mine, mine, ""], [mine, mine, ""], ["", mine, mine]] == shown(store)
    assert (Member(node="n1", slots=(0, 1)), *ELSEWHERE) == job.attempts[-1].members
    assert job.state_reason == "starting on n1, slots 0, 1; n2, slots 1, 0; n3, slots 2, 1"
    assert 1 == len(store.holding())


@pytest.mark.parametrize(("node", "slot"), [("n1", 1), ("n2", 0), ("n3", 2)])
def test_where_one_slot_is_taken_none_is(store, node: str, slot: int) -> None:
    holder = store.dispatch(submit(store).id, node, slot)
    before, waiting = shown(store), submit(store)

    with pytest.raises(FailedPreconditionError, match=r"of n1 or .* of n2 or .* of n3") as caught:
        store.dispatch(waiting.id, "n1", 0, 1, elsewhere=ELSEWHERE)
    assert caught.value.reason == "SLOT_TAKEN"
    assert before == shown(store)
    assert waiting == store.get(waiting.id)
    store.recover(holder, "gone")
    assert store.dispatch(waiting.id, "n1", 0, 1, elsewhere=ELSEWHERE).attempt == 1


def test_the_same_slot_of_another_machine_is_another_slot(store) -> None:
    spread(store)
    other = store.dispatch(submit(store).id, "n1", 2, elsewhere=[Member(node="n2", slots=(2,))])

    assert other.job_id == slots_of(store, "n2")[2] == slots_of(store, "n1")[2]


@pytest.mark.parametrize("end", ["succeeds", "is lost", "is cancelled by force", "is paused"])
def test_every_end_frees_all_of_them(store, end: str) -> None:
    assignment = spread(store)
    store.begin(assignment)
    if end == "succeeds":
        store.finish(assignment, State.SUCCEEDED, reason="done")
    elif end == "is cancelled by force":
        store.cancel(assignment.job_id, "now", force=True)
    else:
        if end == "is paused":
            store.pause(assignment.job_id, "lunch")
        store.recover(assignment, "ended")

    assert shown(store) == EMPTY
    assert [] == list(store.holding())


@pytest.mark.parametrize(
    "elsewhere",
    [
        [Member(node="n2", slots=(0, 0))],
        [Member(node="n1", slots=(2,))],
        [Member(node="n2", slots=(0,)), Member(node="n2", slots=(1,))],
    ],
)
def test_no_slot_and_no_machine_is_named_twice(store, elsewhere: list[Member]) -> None:
    with pytest.raises(ValueError, match="twice"):
        store.dispatch(submit(store).id, "n1", 0, elsewhere=elsewhere)
    assert shown(store) == EMPTY


class TestRendezvous:
    def test_the_others_learn_where_the_first_machine_is(self, store) -> None:
        assignment = spread(store)
        assert store.rendezvous(assignment) == ""
        store.begin(assignment, rendezvous="10.0.0.7:29400")

        assert store.rendezvous(assignment) == "10.0.0.7:29400"

    def test_the_next_attempt_does_not_meet_where_the_last_one_did(self, store) -> None:
        assignment = spread(store)
        store.begin(assignment, rendezvous="10.0.0.7:29400")
        store.recover(assignment, "lost")
        with pytest.raises(StaleFenceError):
            store.rendezvous(assignment)

        again = store.dispatch(assignment.job_id, "n1", 0, elsewhere=ELSEWHERE)
        assert store.rendezvous(again) == ""

    def test_who_lost_the_job_is_told_to_leave(self, store) -> None:
        ended = start(store)
        store.finish(ended, State.SUCCEEDED, reason="done")
        for stale in (ended, Assignment(job_id="job-none", attempt=1, fence=1)):
            with pytest.raises(StaleFenceError):
                store.rendezvous(stale)
