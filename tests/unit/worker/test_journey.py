"""What is told of an attempt's way to its first step."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from podium.jobs.job import Attempt, Job
from podium.jobs.states import State
from podium.jobs.tracing import Spell
from podium.worker.journey import Journey
from tests.contract.plays import SPEC

ZERO = datetime(2026, 1, 1, tzinfo=UTC)
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


FIRST = Attempt(number=1, node="n1", slot=0, start_time=at(10))
JOB = Job(
    id="job-1",
    project="default",
    spec=SPEC,
    state=State.RUNNING,
    create_time=at(0),
    attempt=1,
    attempts=(FIRST,),
    trace_parent=PARENT,
)


class Told:
    """A journey, its clock, and what it told."""

    def __init__(self, job: Job, start: int = 0) -> None:
        self.now = at(12)
        self.spells: list[tuple[Spell, str]] = []
        self.journey = Journey(job, start, clock=lambda: self.now, tell=lambda *told: self.spells.append(told))

    def at(self, seconds: float, step: int, phase: str = "") -> None:
        self.now = at(seconds)
        self.journey.at(step, phase)
        self.journey.close()


def parts(spell: Spell) -> list[tuple[str, float, float]]:
    return [
        (part.name, (part.start - ZERO).total_seconds(), (part.end - ZERO).total_seconds()) for part in spell.within
    ]


def test_the_way_is_told_once_at_the_first_step_in_parts_that_join():
    told = Told(JOB)
    told.at(13, 0, "listing images")
    told.at(14, 0, "loading weights")
    told.at(15, 0, "loading weights")
    assert [] == told.spells
    told.at(20, 1)
    told.at(21, 2)
    ((spell, parent),) = told.spells

    assert ("first step", at(0), at(20), PARENT) == (spell.name, spell.start, spell.end, parent)
    assert {"podium.job_id": "job-1", "podium.attempt": 1, "podium.node": "n1"} == spell.facts
    assert [
        ("queued", 0, 10),
        ("starting", 10, 12),
        ("beginning", 12, 13),
        ("listing images", 13, 14),
        ("loading weights", 14, 20),
    ] == parts(spell)


def test_a_later_attempt_waits_since_the_one_before_ended_and_starts_where_that_had_come():
    second = replace(FIRST, number=2, start_time=at(10))
    job = replace(JOB, attempt=2, attempts=(replace(FIRST, start_time=at(1), end_time=at(7)), second))
    told = Told(job, start=40)
    told.at(13, 40, "training")
    assert [] == told.spells
    told.at(14, 41, "training")
    ((spell, _),) = told.spells

    assert ("queued", 7, 10) == parts(spell)[0]
    assert ("training", 13, 14) == parts(spell)[-1]


def test_clocks_that_disagree_make_no_span_that_ends_before_it_begins():
    told = Told(replace(JOB, attempts=(replace(FIRST, start_time=at(30)),)))
    told.at(13, 1)
    ((spell, _),) = told.spells

    assert all(start <= end for _, start, end in parts(spell))
    assert spell.start <= spell.end


def test_a_job_that_is_not_traced_tells_nothing():
    told = Told(replace(JOB, trace_parent=""))
    told.at(13, 1)

    assert [] == told.spells
