"""Whose work is interrupted, for whom, and that it comes to rest."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from podium.jobs.job import Node
from podium.server.dispatcher._plan import Plan, plan
from podium.server.dispatcher._pool import Demand, Pool, Running, Waiting
from podium.server.dispatcher._shares import Sharing
from tests.unit.server.pools import HIGH, LOW, NORMAL, NOW, URGENT, holding, line, machines, pool, running


def victims(found: Pool) -> list[str]:
    return [preemption.victim.id for preemption in plan(found).preemptions]


def runs(nodes: list[Node], **ranks: int) -> list[Running]:
    """The jobs of the machines' slots with their classes; each started a second after the one before."""
    return [
        running(job_id, *holding(nodes, job_id), rank=rank, since=NOW - 100 + number)
        for number, (job_id, rank) in enumerate(ranks.items())
    ]


def test_a_job_that_fits_interrupts_nobody():
    nodes = machines(["x", ""])

    assert [] == victims(pool(nodes, line(1, rank=URGENT), *runs(nodes, x=LOW)))


def test_the_lowest_class_gives_way_first_and_in_it_whoever_started_last():
    nodes = machines(["normal", "old", "young"])
    found = pool(nodes, line(1, rank=URGENT), *runs(nodes, normal=NORMAL, old=LOW, young=LOW))

    assert ["young"] == victims(found)
    assert "j0 of class URGENT needs its slots" == plan(found).preemptions[0].reason


def test_the_same_class_never_gives_way():
    nodes = machines(["x"])

    assert [] == victims(pool(nodes, line(1, rank=HIGH), *runs(nodes, x=HIGH)))


def test_nobody_is_interrupted_where_it_would_not_make_the_job_start():
    nodes = machines(["a", "b"], ["c", "d"])
    found = pool(nodes, line(2, rank=HIGH), *runs(nodes, a=LOW, b=HIGH, c=HIGH, d=LOW))

    assert [] == victims(found)
    assert [] == victims(pool(nodes, line(Demand(1, 3), rank=HIGH), *runs(nodes, a=LOW, b=LOW, c=LOW, d=LOW)))


def test_as_few_as_will_do_are_interrupted():
    nodes = machines(["one", "two", "two", ""])
    found = pool(nodes, line(3, rank=HIGH), *runs(nodes, two=LOW, one=LOW))

    assert ["two"] == victims(found)


def test_a_gang_of_several_machines_gets_all_that_it_needs_or_interrupts_nobody():
    nodes = machines(["a", "b"], ["c", "d"])
    facts = runs(nodes, a=LOW, b=LOW, c=LOW, d=LOW)

    assert ["a", "b", "c", "d"] == sorted(victims(pool(nodes, line(Demand(2, 2), rank=HIGH), *facts)))


def test_whoever_is_stopping_already_counts_as_about_to_be_free_for_one_job_only():
    nodes = machines(["x", "y"])
    stopping, other = runs(nodes, x=LOW, y=LOW)
    found = pool(nodes, line(1, 1, rank=HIGH), replace(stopping, stopping=True), other)

    assert ["y"] == victims(found)
    assert [] == victims(pool(nodes, line(1, rank=HIGH), replace(stopping, stopping=True), other))


def test_free_slots_that_complete_a_gang_are_given_to_nobody_while_the_others_stop():
    nodes = machines(["x", ""])
    large, small = [*line(2, rank=HIGH), *line(1, first=1)]
    found = plan(pool(nodes, [large, small], *runs(nodes, x=LOW)))

    assert ([], ["x"]) == (found.placements, [preemption.victim.id for preemption in found.preemptions])
    assert found.held["j0"].stopping


def test_a_job_behind_never_takes_the_machine_that_is_kept_for_the_one_before_it():
    nodes = machines(["low", "high"])
    found = pool(nodes, line(2, 1, rank=HIGH), *runs(nodes, low=LOW, high=HIGH))

    assert [] == victims(found)


# Quotas


def quota_pool(nodes: list[Node], waiting: list[Waiting], *jobs: Running, **quotas: int) -> Pool:
    return pool(nodes, waiting, *jobs, sharing=Sharing(quotas=quotas))


def test_a_project_within_its_quota_gets_borrowed_slots_back():
    nodes = machines(["x", "y", "z"])
    jobs = [replace(job, project="nlp") for job in runs(nodes, x=NORMAL, y=NORMAL, z=NORMAL)]
    found = quota_pool(nodes, line(1, 1, 1, project="vision"), *jobs, vision=2, nlp=1)

    assert ["z", "y"] == victims(found)
    assert "its slots were beyond the quota of project nlp; j0 needs them" == plan(found).preemptions[0].reason


def test_a_project_beyond_its_quota_takes_back_nothing():
    nodes = machines(["x", "y"])
    jobs = [replace(job, project="nlp") for job in runs(nodes, x=NORMAL, y=NORMAL)]

    assert [] == victims(quota_pool(nodes, line(1, project="vision"), *jobs, vision=0, nlp=0))


def test_borrowed_slots_of_a_higher_class_are_not_taken_back():
    nodes = machines(["x"])
    jobs = [replace(job, project="nlp") for job in runs(nodes, x=HIGH)]

    assert [] == victims(quota_pool(nodes, line(1, project="vision", rank=NORMAL), *jobs, vision=1, nlp=0))


@st.composite
def _crowds(draw: st.DrawFn) -> tuple[list[int], list[Waiting], dict[str, int]]:
    sizes = draw(st.lists(st.integers(1, 2), min_size=1, max_size=2))
    waiting = draw(
        st.lists(
            st.builds(
                Waiting,
                id=st.just(""),
                project=st.sampled_from(["p", "q", "r"]),
                rank=st.integers(1, 4),
                demand=st.builds(Demand, st.integers(1, 2), st.sampled_from([1, 1, 1, 2])),
            ),
            min_size=4,
            max_size=10,
        )
    )
    named = [replace(job, id=f"j{number}", number=number) for number, job in enumerate(waiting)]
    return sizes, named, draw(st.dictionaries(st.sampled_from(["p", "q"]), st.integers(0, 4)))


@given(scene=_crowds(), arrivals=st.lists(st.integers(0, 5), min_size=10, max_size=10), slow=st.booleans())
@settings(max_examples=60)
def test_interruptions_come_to_rest_once_nobody_new_comes_and_nobody_takes_back_what_it_was_asked_for(
    scene, arrivals, slow
):
    sizes, jobs, quotas = scene
    come = {job.id: look for job, look in zip(jobs, arrivals, strict=False)}
    held: dict[str, Running] = {}
    last = 0
    for look in range(40):
        now = NOW + look
        nodes = machines(
            *([_in(held, name, slot) for slot in range(size)] for name, size in zip("abc", sizes, strict=False))
        )
        waiting = [job for job in jobs if job.id not in held and come[job.id] <= look]
        found = plan(replace(quota_pool(nodes, waiting, *held.values(), **quotas), now=now))
        _carry_out(found, held, {job.id: job for job in jobs}, now)
        if found.preemptions:
            last = look
        if not (slow and look % 2):
            # Whoever was asked to stop has gone, and is back in its old place in line.
            for job_id in [job_id for job_id, job in held.items() if job.stopping]:
                del held[job_id]

    assert last < 25


def _in(held: dict[str, Running], name: str, slot: int) -> str:
    places = ((job.id, member) for job in held.values() for member in job.members)
    return next((job_id for job_id, member in places if member.node == name and slot in member.slots), "")


def _carry_out(found: Plan, held: dict[str, Running], jobs: dict[str, Waiting], now: float) -> None:
    for preemption in found.preemptions:
        assert not held[preemption.victim.id].stopping, "nobody is asked twice"
        held[preemption.victim.id] = replace(held[preemption.victim.id], stopping=True)
    for placement in found.placements:
        job = jobs[placement.job_id]
        held[job.id] = Running(id=job.id, project=job.project, rank=job.rank, members=placement.members, since=now)
