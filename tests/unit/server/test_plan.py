"""What the dispatcher's plan promises, whatever waits and whatever runs."""

import itertools
from collections.abc import Container, Sequence

from hypothesis import given
from hypothesis import strategies as st

from podium.jobs.job import Node, NodeState, Slot
from podium.server.dispatcher._plan import Placement, plan


def machine(name: str, held: Sequence[str]) -> Node:
    """A machine with a slot for each of `held`, the job in it or nothing."""
    slots = tuple(Slot(index=index, job_id=job_id) for index, job_id in enumerate(held))
    return Node(id=name, pool="default", state=NodeState.READY, slots=slots)


def pool(*held: Sequence[str]) -> list[Node]:
    """Machines named a, b, …"""
    return [machine(name, slots) for name, slots in zip("abcdefgh", held, strict=False)]


def line(*needs: int) -> list[tuple[str, int]]:
    """Jobs j0, j1, … that need so many slots."""
    return [(f"j{place}", need) for place, need in enumerate(needs)]


def placed(placements: Sequence[Placement]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(placement.job_id, placement.node, placement.slots) for placement in placements]


def taken_in(left: Container[tuple[str, int]], name: str, size: int) -> list[str]:
    """What is in the slots of a machine."""
    return ["x" if (name, index) in left else "" for index in range(size)]


MACHINES = st.lists(st.lists(st.sampled_from(["", "", "x"]), max_size=4), max_size=4).map(lambda held: pool(*held))
NEEDS = st.lists(st.integers(1, 5), max_size=8)


@given(nodes=MACHINES, needs=NEEDS)
def test_a_job_gets_exactly_what_it_needs_of_one_machine_and_no_slot_is_given_twice(
    nodes: list[Node], needs: list[int]
) -> None:
    free = {(node.id, slot.index) for node in nodes for slot in node.slots if not slot.job_id}
    wanted = dict(line(*needs))
    for placement in plan(line(*needs), nodes):
        places = {(placement.node, slot) for slot in placement.slots}
        assert len(places) == len(placement.slots) == wanted.pop(placement.job_id)
        assert places <= free
        free -= places


@given(nodes=MACHINES, needs=NEEDS, places=st.lists(st.integers(0, 8), max_size=4))
def test_a_job_that_is_larger_than_every_machine_changes_nothing_for_the_others(
    nodes: list[Node], needs: list[int], places: list[int]
) -> None:
    waiting = line(*needs)
    crowded = list(waiting)
    for number, place in enumerate(places):
        crowded.insert(place, (f"huge{number}", 6))

    assert list(plan(waiting, nodes)) == list(plan(crowded, nodes))


@given(nodes=MACHINES, jobs=st.integers(0, 20))
def test_jobs_of_one_slot_fill_every_free_slot_in_their_order(nodes: list[Node], jobs: int) -> None:
    free = sum(not slot.job_id for node in nodes for slot in node.slots)

    assert [f"j{place}" for place in range(min(jobs, free))] == [
        placement.job_id for placement in plan(line(*[1] * jobs), nodes)
    ]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    wanted=st.integers(2, 4),
    looks=st.lists(st.integers(1, 5), min_size=1, max_size=20),
)
def test_a_large_job_starts_after_finitely_many_ends_however_many_small_ones_come(
    sizes: list[int], wanted: int, looks: list[int]
) -> None:
    sizes = [*sizes, wanted]
    lives = itertools.cycle(looks)
    left: dict[tuple[str, int], int] = {}  # looks that the job in a slot lives on
    small = (f"small{number}" for number in itertools.count())
    # The free slots of the machine that is kept never become fewer, and it changes at most to one with more of them,
    # or with as many and an earlier name; within 5 looks one of its jobs ends.
    for look in range(5 * (sum(sizes) * len(sizes) + 1)):
        waiting = itertools.chain([("large", wanted)] if look else [], ((job_id, 1) for job_id in small))
        nodes = pool(*(taken_in(left, name, size) for name, size in zip("abcd", sizes, strict=False)))
        for placement in plan(waiting, nodes):
            if placement.job_id == "large":
                return
            left.update({(placement.node, slot): next(lives) for slot in placement.slots})
        left = {place: lives_on - 1 for place, lives_on in left.items() if lives_on > 1}
    raise AssertionError("the large job starved")


def test_the_free_slots_of_the_machine_that_is_kept_are_given_to_nobody_behind() -> None:
    nodes = pool(["x", "", ""], ["x", "x", ""], ["", "x"])

    assert [("j1", "c", (0,)), ("j2", "b", (2,))] == placed(list(plan(line(3, 1, 1, 1), nodes)))


def test_who_stands_before_a_large_job_still_gets_its_slot() -> None:
    assert [("j0", "a", (1,))] == placed(list(plan(line(1, 2, 1), pool(["x", ""]))))


def test_a_machine_is_kept_for_each_large_job_as_long_as_there_are_some() -> None:
    nodes = pool(["x", ""], ["x", ""], ["x", ""])

    assert [("j2", "c", (1,))] == placed(list(plan(line(2, 2, 1), nodes)))
    assert [] == placed(list(plan(line(2, 2, 2, 2, 1), nodes)))


def test_one_slot_comes_from_the_machine_with_the_fewest_busy_ones() -> None:
    assert [("j0", "b", (0,)), ("j1", "a", (1,)), ("j2", "b", (1,))] == placed(
        list(plan(line(1, 1, 1), pool(["x", "", ""], ["", ""])))
    )


def test_several_slots_come_from_the_machine_where_they_leave_the_fewest_free() -> None:
    nodes = pool(["", "", "", ""], ["x", "", ""], ["", "", ""])

    assert [("j0", "b", (1, 2)), ("j1", "c", (0, 1, 2)), ("j2", "a", (0, 1, 2, 3))] == placed(
        list(plan(line(2, 3, 4), nodes))
    )


def test_the_line_is_read_only_as_far_as_there_are_free_slots() -> None:
    waiting = iter(line(1, 1, 1, 1))
    list(plan(waiting, pool(["x", "", ""])))

    assert ("j2", 1) == next(waiting)
