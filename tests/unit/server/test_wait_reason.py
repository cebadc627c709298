"""What a queued job is told that it waits for."""

import pytest

from podium.jobs.job import Node, NodeState, QueueInfo, Slot
from podium.jobs.spec import Resources
from podium.server.services.jobs import wait_reason


def machine(name: str, *held: str, state: NodeState = NodeState.READY, pool: str = "default") -> Node:
    slots = tuple(Slot(index=index, job_id=job_id) for index, job_id in enumerate(held))
    return Node(id=name, pool=pool, state=state, slots=slots)


def reason(gpus: int, *nodes: Node, position: int = 1) -> str:
    return wait_reason(Resources(gpus=gpus), QueueInfo(position=position), nodes)


def test_a_job_that_no_machine_can_hold_is_told_the_largest() -> None:
    nodes = (machine("a", "", ""), machine("b", "x"), machine("c", *[""] * 8, pool="other"))

    assert (
        "needs 4 slots of one machine; the largest that takes jobs in pool default has 2: "
        "start a larger one, or submit with resources.gpus of at most 2"
    ) == reason(4, *nodes)


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.LOST])
def test_a_machine_that_takes_no_jobs_is_not_counted(state: NodeState) -> None:
    nodes = (machine("a", "", ""), machine("b", *[""] * 4, state=state))

    assert reason(4, *nodes).startswith(
        "needs 4 slots of one machine; the largest that takes jobs in pool default has 2"
    )


def test_free_slots_on_several_machines_are_not_room_for_one_job() -> None:
    nodes = (machine("a", "x", ""), machine("b", "", "y"))

    assert "waiting for 2 free slots of one machine in pool default: 2 of 4 busy" == reason(2, *nodes)
    assert "about to start in pool default: 2 of 4 slots are busy" == reason(1, *nodes)


def test_who_is_not_first_is_not_told_that_it_is_about_to_start() -> None:
    told = reason(1, machine("a", "x", ""), position=2)

    assert "waiting for its turn in pool default: free slots go to jobs before it; 1 of 2 busy" == told


def test_a_pool_without_machines_says_how_to_start_one() -> None:
    assert "start one with" in reason(1, machine("c", "", pool="other"))
    assert "draining" in reason(1, machine("a", "", state=NodeState.DRAINING))
