"""In which order projects are served, and how their use of the pool is counted."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.jobs.store import Usage
from podium.server.dispatcher import Sharing, sharing_from_environment
from podium.server.dispatcher._order import Order
from podium.server.dispatcher._pool import Demand, Pool, Waiting
from podium.server.dispatcher._shares import aged
from tests.unit.server.pools import HIGH, LOW, machine, pool, running

START = datetime(2026, 11, 25, tzinfo=UTC)


def served(found: Pool) -> list[str]:
    """Everybody in turn, as if there were always room."""
    order = Order(found)
    names = []
    for job in order:
        names.append(job.id)
        order.charge(job)
    return names


def jobs(**projects: int) -> list[Waiting]:
    """Jobs a0, a1, … of project a, then those of the next project."""
    names = [(project, place) for project, count in projects.items() for place in range(count)]
    return [Waiting(id=f"{name}{place}", project=name, number=number) for number, (name, place) in enumerate(names)]


def test_equal_projects_take_turns_whoever_came_first():
    assert ["a0", "b0", "a1", "b1", "a2", "a3"] == served(pool([], jobs(a=4, b=2)))


def test_a_project_of_twice_the_weight_has_two_turns():
    assert ["a0", "b0", "b1", "a1", "b2", "b3"] == served(pool([], jobs(a=2, b=4), sharing=Sharing(weights={"b": 2})))


def test_whoever_has_used_less_goes_first_until_it_has_caught_up():
    assert ["b0", "b1", "a0", "b2", "a1"] == served(pool([], jobs(a=2, b=3), usage={"a": 100.0}))


def test_what_a_project_holds_counts_as_a_minute_in_advance():
    nodes = [machine("m", ["x", "y"])]
    runs = [running(name, ("m", slot), project="a") for slot, name in enumerate(["x", "y"])]

    assert ["b0", "b1", "a0", "b2"] == served(pool(nodes, jobs(a=1, b=3), *runs))


def test_whoever_stays_within_its_quota_goes_before_whoever_borrows():
    found = pool([], jobs(a=3, b=2), sharing=Sharing(quotas={"a": 1}), usage={"b": 1e6})

    assert ["a0", "b0", "b1", "a1", "a2"] == served(found)


def test_a_job_beyond_the_quota_waits_for_others_within_theirs_though_one_before_it_was_within():
    within, beyond = Waiting(id="a0", project="a"), Waiting(id="a1", project="a", number=1, demand=Demand(3))
    other = Waiting(id="b0", project="b", number=2)
    found = pool([], [within, beyond, other], sharing=Sharing(quotas={"a": 2}), usage={"b": 1.0})

    # Nobody gets anything, so that no project has had its turn.
    assert ["a0", "b0", "a1"] == [job.id for job in Order(found)]


def test_a_large_job_beyond_the_quota_does_not_keep_small_ones_of_other_projects_from_theirs():
    large = Waiting(id="large", project="a", number=0, demand=Demand(4))

    assert ["b1", "large"] == served(
        pool([], [large, Waiting(id="b1", project="b", number=1)], sharing=Sharing(quotas={"a": 2}))
    )


@given(
    st.lists(
        st.builds(
            Waiting,
            id=st.just(""),
            project=st.sampled_from("abc"),
            rank=st.integers(LOW, HIGH),
            demand=st.builds(Demand, st.integers(1, 3)),
        ),
        max_size=15,
    ),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
)
def test_everybody_is_served_once_by_class_and_within_a_project_by_creation(waiting, quotas):
    named = [
        Waiting(id=str(n), project=w.project, rank=w.rank, demand=w.demand, number=n) for n, w in enumerate(waiting)
    ]
    by_id = {job.id: job for job in named}
    order = [by_id[job_id] for job_id in served(pool([], named, sharing=Sharing(quotas=quotas)))]

    assert sorted(by_id) == sorted(job.id for job in order)
    assert all(one.rank >= other.rank for one, other in pairwise(order))
    for project in "abc":
        for rank in range(LOW, HIGH + 1):
            mine = [job.number for job in order if (job.project, job.rank) == (project, rank)]
            assert sorted(mine) == mine


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=10), st.integers(0, 100), st.floats(0, 1e9))
def test_the_account_is_the_same_however_often_it_is_written_up(steps, slots, used):
    held = {("default", "a"): slots}
    begin = Usage(time=START, seconds={("default", "a"): used})
    often = begin
    times = [START]
    for step in steps:
        times.append(times[-1] + timedelta(seconds=step))
        often = aged(often, held, times[-1], 3600.0)
    once = aged(begin, held, times[-1], 3600.0)

    assert pytest.approx(once.seconds.get(("default", "a"), 0.0), rel=1e-6, abs=1.5) == often.seconds.get(
        ("default", "a"), 0.0
    )


def test_half_is_left_after_the_half_life_and_a_short_while_is_slots_times_seconds():
    used = Usage(time=START, seconds={("default", "a"): 1000.0})

    assert {("default", "a"): 500.0} == aged(used, {}, START + timedelta(seconds=60), 60.0).seconds
    after = aged(None, {("p", "b"): 3}, START, 86_400.0)
    assert (
        pytest.approx(30.0, rel=1e-3)
        == aged(after, {("p", "b"): 3}, START + timedelta(seconds=10), 86_400.0).seconds["p", "b"]
    )


def test_what_is_long_ago_is_forgotten_and_a_clock_that_goes_back_changes_nothing():
    used = Usage(time=START, seconds={("default", "a"): 1.0})

    assert {} == aged(used, {}, START + timedelta(days=10), 3600.0).seconds
    assert used == aged(used, {}, START - timedelta(hours=1), 3600.0)


def test_the_operator_says_weights_quotas_and_half_life():
    environment = {
        "PODIUM_SHARES": "vision=2, nlp=0.5",
        "PODIUM_QUOTAS": "vision=8\nnlp=0",
        "PODIUM_SHARE_HALF_LIFE": "60",
    }

    assert Sharing(half_life=60.0, weights={"vision": 2.0, "nlp": 0.5}, quotas={"vision": 8, "nlp": 0}) == (
        sharing_from_environment(environment)
    )
    assert Sharing() == sharing_from_environment({})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PODIUM_SHARES", "vision"),
        ("PODIUM_SHARES", "vision=0"),
        ("PODIUM_SHARES", "vision=nan"),
        ("PODIUM_SHARES", "vision=inf"),
        ("PODIUM_SHARES", "vision=-1"),
        ("PODIUM_SHARES", "Vision=1"),
        ("PODIUM_SHARES", "vision=1 vision=2"),
        ("PODIUM_SHARES", "vision=1=2"),
        ("PODIUM_QUOTAS", "vision=1.5"),
        ("PODIUM_QUOTAS", "vision=-1"),
        ("PODIUM_QUOTAS", "=3"),
        ("PODIUM_QUOTAS", "vision=many"),
        ("PODIUM_SHARE_HALF_LIFE", "0"),
        ("PODIUM_SHARE_HALF_LIFE", "a day"),
        ("PODIUM_SHARE_HALF_LIFE", "nan"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(variable, value):
    with pytest.raises(ValueError, match=variable):
        sharing_from_environment({variable: value})
