"""What is new of many jobs, read in one step: the hub's way to the ledger."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, MemoryStore, NewJob

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def running(store: JobStore, slot: int) -> Assignment:
    job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("cat", "dog")))
    assignment = store.dispatch(job.id, "n1", slot)
    store.begin(assignment)
    return assignment


def told(store: JobStore, assignment: Assignment, batches: int) -> None:
    """Two events a batch, points among them."""
    for batch in range(1, batches + 1):
        lines = LogBatch(lines=(LogLine(text=f"line {batch}"),))
        store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0}), lines])


def test_each_job_is_read_on_from_its_own_place_and_as_alone(store) -> None:
    first, second, idle = (running(store, slot) for slot in range(3))
    told(store, first, 4)
    told(store, second, 2)
    after = {first.job_id: 5, second.job_id: 0, idle.job_id: 3}

    news = store.news(after, limit=3)

    assert {
        job_id: store.events(job_id, after=after[job_id], limit=3).events for job_id in (first.job_id, second.job_id)
    } == {job_id: tuple(events) for job_id, events in news.items()}


def test_what_was_trimmed_archived_or_never_there_is_for_events_to_say(world) -> None:
    store = world.trimming
    trimmed, archived, whole = (running(store, slot) for slot in range(3))
    told(store, trimmed, 8)
    told(store, whole, 1)
    store.finish(archived, State.SUCCEEDED, reason="done")
    store.archive(archived.job_id)
    after = {trimmed.job_id: 3, archived.job_id: 3, "job-none": 0, whole.job_id: 3}

    news = store.news(after, limit=10)

    assert [2, 0, 0, 0] == [len(news[name]) for name in (whole.job_id, trimmed.job_id, archived.job_id, "job-none")]


@settings(max_examples=20)
@given(places=st.lists(st.integers(0, 9), min_size=1, max_size=4), limit=st.integers(1, 12))
def test_reading_on_and_on_leaves_nothing_out(places: list[int], limit: int) -> None:
    store = MemoryStore()
    jobs = [running(store, slot) for slot in range(len(places))]
    for assignment in jobs:
        told(store, assignment, 3)
    after = {assignment.job_id: place for assignment, place in zip(jobs, places, strict=True)}
    seen: dict[str, list[int]] = {job_id: [] for job_id in after}

    while news := store.news(after, limit=limit):
        for job_id, events in news.items():
            seen[job_id] += [event.sequence for event in events]
            after[job_id] = seen[job_id][-1]

    assert [list(range(place + 1, 10)) for place in places] == list(seen.values())


@pytest.mark.parametrize("limit", [1, 5])
def test_no_job_is_told_more_than_was_asked_for(store, limit: int) -> None:
    assignment = running(store, 0)
    told(store, assignment, 4)

    (events,) = store.news({assignment.job_id: 0}, limit=limit).values()

    assert list(range(1, limit + 1)) == [event.sequence for event in events]
