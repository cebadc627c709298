"""What the dispatcher's plan promises, whatever waits and whatever runs."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.jobs.job import Node
from podium.server.dispatcher._plan import Placement, _Planner, plan
from podium.server.dispatcher._pool import Demand, Pool, Waiting
from podium.server.dispatcher._shares import Sharing
from tests.unit.server.pools import HIGH, LOW, NORMAL, NOW, holding, line, machine, machines, pool, running

MACHINES = st.lists(st.lists(st.sampled_from(["", "", "x"]), max_size=4), max_size=4).map(lambda held: machines(*held))
NEEDS = st.lists(st.integers(1, 5), max_size=8)
DEMANDS = st.lists(st.builds(Demand, st.integers(1, 3), st.integers(1, 3)), max_size=8)


def placed(found: Pool) -> list[tuple[str, str, tuple[int, ...]]]:
    """The placements on one machine."""
    return [
        (placement.job_id, member.node, member.slots)
        for placement in plan(found).placements
        for member in placement.members
    ]


def free_places(nodes: list[Node]) -> set[tuple[str, int]]:
    return {(node.id, slot.index) for node in nodes for slot in node.slots if not slot.job_id}


@given(nodes=MACHINES, needs=st.one_of(NEEDS, DEMANDS))
def test_a_job_gets_exactly_what_it_needs_all_or_none_and_no_slot_is_given_twice(nodes, needs):
    free = free_places(nodes)
    wanted = {job.id: job.demand for job in line(*needs)}
    for placement in plan(pool(nodes, line(*needs))).placements:
        demand = wanted.pop(placement.job_id)
        assert len({member.node for member in placement.members}) == demand.nodes
        for member in placement.members:
            places = {(member.node, slot) for slot in member.slots}
            assert len(places) == len(member.slots) == demand.gpus
            assert places <= free
            free -= places


@given(nodes=MACHINES, needs=NEEDS, places=st.lists(st.integers(0, 8), max_size=4))
def test_a_job_that_is_larger_than_every_machine_changes_nothing_for_the_others(nodes, needs, places):
    crowded = line(*needs)
    for number, place in enumerate(places):
        crowded.insert(place, Waiting(id=f"huge{number}", demand=Demand(6)))
    renumbered = [replace(job, number=number) for number, job in enumerate(crowded)]

    assert placed(pool(nodes, line(*needs))) == placed(pool(nodes, renumbered))


@given(nodes=MACHINES, jobs=st.integers(0, 20))
def test_jobs_of_one_slot_fill_every_free_slot_in_their_order(nodes, jobs):
    order = [job_id for job_id, _, _ in placed(pool(nodes, line(*[1] * jobs)))]

    assert [f"j{place}" for place in range(min(jobs, len(free_places(nodes))))] == order


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    wanted=st.integers(2, 4),
    looks=st.lists(st.integers(1, 5), min_size=1, max_size=20),
)
@settings(max_examples=50)
def test_a_large_job_starts_after_finitely_many_ends_however_many_small_ones_come(sizes, wanted, looks):
    sizes = [*sizes, wanted]
    lives = itertools.cycle(looks)
    left: dict[tuple[str, int], int] = {}  # looks that the job in a slot lives on
    small = itertools.count(1)
    # The free slots of the machine that is kept never become fewer, and it changes at most to one with more of them,
    # or with as many and an earlier name; within 5 looks one of its jobs ends.
    for look in range(5 * (sum(sizes) * len(sizes) + 1)):
        large = [Waiting(id="large", demand=Demand(wanted))] if look else []
        waiting = [*large, *(Waiting(id=f"small{next(small)}", number=next(small)) for _ in range(sum(sizes)))]
        nodes = machines(
            *(
                ["x" if (name, slot) in left else "" for slot in range(size)]
                for name, size in zip("abcd", sizes, strict=False)
            )
        )
        for job_id, name, slots in placed(pool(nodes, waiting)):
            if job_id == "large":
                return
            left.update({(name, slot): next(lives) for slot in slots})
        left = {place: lives_on - 1 for place, lives_on in left.items() if lives_on > 1}
    raise AssertionError("the large job starved")


def test_the_free_slots_of_the_machine_that_is_kept_are_given_to_nobody_behind():
    nodes = machines(["x", "", ""], ["x", "x", ""], ["", "x"])

    assert [("j1", "c", (0,)), ("j2", "b", (2,))] == placed(pool(nodes, line(3, 1, 1, 1)))


def test_who_stands_before_a_large_job_still_gets_its_slot():
    assert [("j0", "a", (1,))] == placed(pool(machines(["x", ""]), line(1, 2, 1)))


def test_a_machine_is_kept_for_each_large_job_as_long_as_there_are_some():
    nodes = machines(["x", ""], ["x", ""], ["x", ""])

    assert [("j2", "c", (1,))] == placed(pool(nodes, line(2, 2, 1)))
    assert [] == placed(pool(nodes, line(2, 2, 2, 2, 1)))


def test_one_slot_comes_from_the_machine_with_the_fewest_busy_ones():
    nodes = machines(["x", "", ""], ["", ""])

    assert [("j0", "b", (0,)), ("j1", "a", (1,)), ("j2", "b", (1,))] == placed(pool(nodes, line(1, 1, 1)))


def test_several_slots_come_from_the_machine_where_they_leave_the_fewest_free():
    nodes = machines(["", "", "", ""], ["x", "", ""], ["", "", ""])

    assert [("j0", "b", (1, 2)), ("j1", "c", (0, 1, 2)), ("j2", "a", (0, 1, 2, 3))] == placed(
        pool(nodes, line(2, 3, 4))
    )


def test_a_job_of_several_machines_takes_one_part_of_each_and_only_of_those_with_an_address():
    nodes = [machine("a", ["", ""]), machine("b", ["", ""], address=""), machine("c", ["", "", ""])]

    assert [("j0", "a", (0, 1)), ("j0", "c", (0, 1))] == placed(pool(nodes, line(Demand(2, 2))))
    assert [] == placed(pool(nodes[:2], line(Demand(2, 2))))


def test_a_job_of_several_machines_has_several_kept_for_it_and_starts_on_them_together():
    nodes = machines(["x", ""], ["", ""], ["x", "x"])
    found = plan(pool(nodes, line(Demand(2, 2), 1)))

    assert [] == found.placements
    assert ("b", "a") == found.held["j0"].machines


def test_what_a_job_of_several_machines_does_not_need_of_one_is_free_for_others():
    nodes = machines(["", "", ""], ["x"])

    assert [("j1", "a", (1,)), ("j2", "a", (2,))] == placed(pool(nodes, line(Demand(1, 2), 1, 1, 1)))


def test_model_and_memory_choose_the_slot():
    nodes = [machine("a", [""], model="NVIDIA A100", gib=40), machine("b", [""], model="NVIDIA H100 80GB", gib=80)]

    assert [("j0", "b", (0,))] == placed(pool(nodes, line(Demand(model="h100"))))
    assert [("j0", "b", (0,))] == placed(pool(nodes, line(Demand(memory_gib=41))))
    assert [("j1", "a", (0,))] == placed(pool(nodes, line(Demand(model="v100"), 1)))[:1]


def test_a_slot_in_trouble_is_given_to_nobody():
    (node,) = machines(["", ""])
    broken = replace(node, slots=(replace(node.slots[0], trouble="no memory"), node.slots[1]))

    assert [("j0", "a", (1,))] == placed(pool([broken], line(1, 1)))
    assert [("j1", "a", (1,))] == placed(pool([broken], line(2, 1)))


def test_a_job_whose_time_has_not_come_is_passed_over_and_holds_nobody_up():
    early, late = line(2, 1)

    assert [("j1", "a", (0,))] == placed(pool(machines(["", ""]), [replace(early, retry=NOW + 1), late]))
    assert [("j0", "a", (0, 1))] == placed(pool(machines(["", ""]), [replace(early, retry=NOW), late]))


# Backfill


def bounded(job: Waiting, seconds: float) -> Waiting:
    return replace(job, seconds=seconds)


def test_a_short_job_uses_what_is_kept_if_it_is_gone_before_it_is_needed():
    large, short = line(2, 1)
    nodes, runs = machines(["x", ""]), running("x", ("a", 0), until=NOW + 60)

    assert [("j1", "a", (1,))] == placed(pool(nodes, [large, bounded(short, 60)], runs))
    assert [] == placed(pool(nodes, [large, bounded(short, 61)], runs))


def test_without_bounds_nothing_is_let_in():
    large, short = line(2, 1)

    assert [] == placed(pool(machines(["x", ""]), [large, bounded(short, 1)]))
    assert [] == placed(pool(machines(["x", ""]), [large, short], running("x", ("a", 0), until=NOW + 60)))


def test_the_machine_that_is_complete_first_is_kept():
    nodes = machines(["x", "", ""], ["y", "z", ""])
    runs = [running("x", ("a", 0)), running("y", ("b", 0), until=NOW + 5), running("z", ("b", 1), until=NOW + 9)]

    held = plan(pool(nodes, line(3), *runs)).held["j0"]

    assert (("b",), NOW + 9) == (held.machines, held.until)


@st.composite
def _busy_pools(draw: st.DrawFn) -> tuple[list[list[float]], int, list[tuple[int, float]]]:
    """Machines as the seconds that the job in each slot lives on, 0: free; the head's need; small jobs behind it."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    lives = [[draw(st.sampled_from([0.0, 0.0, 3.0, 5.0, 9.0])) for _ in range(size)] for size in sizes]
    need = draw(st.integers(2, 4))
    small = draw(st.lists(st.tuples(st.integers(1, 2), st.sampled_from([1.0, 2.0, 4.0, 8.0, inf])), max_size=12))
    return lives, need, small


@given(scene=_busy_pools(), early=st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_head_of_the_line_never_starts_later_than_was_promised_whoever_is_let_in(scene, early):
    lives, need, small = scene
    ends = {
        (name, slot): NOW + left for name, slots in zip("abc", lives, strict=False) for slot, left in enumerate(slots)
    }
    head = Waiting(id="head", demand=Demand(need))
    waiting = [
        Waiting(id=f"s{n}", number=n, demand=Demand(gpus), seconds=life) for n, (gpus, life) in enumerate(small, 1)
    ]
    luck = itertools.cycle(early)
    promised = inf
    for step in range(15):
        now = NOW + step
        # A job may end before its bound, never after.
        ends = {place: end if end > now and next(luck) else min(end, now) for place, end in ends.items()}
        nodes = machines(
            *(
                ["" if ends["abc"[m], s] <= now else f"{m}{s}" for s in range(len(slots))]
                for m, slots in enumerate(lives)
            )
        )
        runs = [
            running(f"{m}{s}", ("abc"[m], s), until=ends["abc"[m], s])
            for m, slots in enumerate(lives)
            for s in range(len(slots))
            if ends["abc"[m], s] > now
        ]
        found = plan(replace(pool(nodes, [head, *waiting], *runs), now=now))
        started = {placement.job_id: placement for placement in found.placements}
        if "head" in started:
            return
        if "head" not in found.held:
            return  # larger than every machine
        assert found.held["head"].until <= promised
        promised = found.held["head"].until
        assert now < promised
        for job in waiting:
            if job.id in started:
                _occupy(ends, started[job.id], now + job.seconds)
        waiting = [job for job in waiting if job.id not in started]
    assert promised >= NOW + 14


def _occupy(ends: dict[tuple[str, int], float], placement: Placement, until: float) -> None:
    for member in placement.members:
        ends.update({(member.node, slot): until for slot in member.slots})


def test_a_short_job_is_let_in_though_larger_ones_and_longer_ones_of_its_kind_got_nothing():
    large, larger, long, short = line(2, 2, 1, 1)
    nodes, runs = machines(["x", ""]), running("x", ("a", 0), until=NOW + 60)

    assert [("j3", "a", (1,))] == placed(pool(nodes, [large, larger, long, bounded(short, 60)], runs))


# Several classes


class _Thorough(_Planner):
    """Serves the whole line, whether or not anything is left for it."""

    def _hopeful(self) -> Iterator[Waiting]:
        return (job for job in self._order if job.retry <= self._now)

    def _nothing_left(self, rank: int) -> bool:
        return False


@st.composite
def _crowded_pools(draw: st.DrawFn) -> Pool:
    """Few free slots, and who runs and who waits differs in all that counts."""
    projects, ranks = st.sampled_from("ab"), st.sampled_from([LOW, NORMAL, HIGH])
    taken = st.sampled_from([*"uvwxyz", ""])
    nodes = machines(*draw(st.lists(st.lists(taken, min_size=1, max_size=3), min_size=1, max_size=4)))
    jobs = [
        running(
            name,
            *holding(nodes, name),
            project=draw(projects),
            rank=draw(ranks),
            until=NOW + draw(st.sampled_from([3.0, 60.0, inf])),
            stopping=draw(st.sampled_from([True, *[False] * 7])),
        )
        for name in sorted({slot.job_id for node in nodes for slot in node.slots} - {""})
    ]
    waiting = [
        replace(
            each,
            rank=draw(ranks),
            project=draw(projects),
            seconds=draw(st.sampled_from([1.0, 9.0, inf])),
            retry=NOW + draw(st.sampled_from([0.0, 0.0, 0.0, 5.0])),
        )
        for each in line(*draw(st.lists(st.sampled_from([1, 1, 1, 2, 3]), max_size=12)))
    ]
    quotas = draw(st.dictionaries(projects, st.integers(0, 2)))
    return pool(nodes, waiting, *jobs, sharing=Sharing(quotas=quotas))


@given(found=_crowded_pools(), held=st.sampled_from([0, 0, 1, 3]), searches=st.integers(1, 3))
def test_whoever_is_passed_over_in_the_line_would_have_got_nothing(found, held, searches):
    with pytest.MonkeyPatch.context() as limits:
        limits.setattr("podium.server.dispatcher._plan._MOST_HELD", held)
        limits.setattr("podium.server.dispatcher._preempt._MOST_SEARCHES", searches)
        quick, thorough = plan(found), _Thorough(found).plan()

    assert thorough.placements == quick.placements
    assert thorough.preemptions == quick.preemptions


def test_a_higher_class_goes_first_whatever_its_project_has_used():
    low, high = line(1, rank=LOW), line(1, rank=HIGH, project="greedy", first=1)

    assert ["j1"] == [job_id for job_id, _, _ in placed(pool(machines([""]), [*low, *high], usage={"greedy": 1e9}))]


def test_the_worked_example_of_the_guide_is_what_happens():
    def waits(name: str, number: int, project: str, gpus: int = 1, **facts: float) -> Waiting:
        return Waiting(id=name, number=number, project=project, demand=Demand(gpus), **facts)  # type: ignore[arg-type]  # by name

    nodes = machines(["r1", "r1", "", ""], ["r2", ""])
    runs = [running("r1", ("a", 0), ("a", 1), until=NOW + 40 * 60), running("r2", ("b", 0))]
    waiting = [
        waits("long", 0, "nlp"),
        waits("quick", 1, "nlp", seconds=30 * 60),
        waits("big", 2, "vision", 4),
        waits("small", 3, "vision"),
    ]
    found = plan(pool(nodes, waiting, *runs, usage={"nlp": 1000.0}))

    assert [("small", "b", False), ("quick", "a", True)] == [
        (placement.job_id, placement.members[0].node, placement.backfill) for placement in found.placements
    ]
    assert ("a",) == found.held["big"].machines
    assert [] == found.preemptions

    low = [runs[0], replace(runs[1], rank=LOW)]
    found = plan(pool(nodes, waiting, *low, usage={"nlp": 1000.0}))

    assert [("r2", "long")] == [(preemption.victim.id, preemption.job_id) for preemption in found.preemptions]
