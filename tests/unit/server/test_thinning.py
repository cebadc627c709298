"""What is left of a long series: never more than was asked for, and everything that a plot shows."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import MetricBatch, MetricSeries, merge_metrics
from podium.jobs.job import Cause
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Archive, JobStore, MemoryStore, NewJob
from podium.server.services._thinning import thinned
from podium.server.services.metrics import Metrics

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
numbers = st.floats(allow_nan=True, allow_infinity=True)


def kept_of(values: Sequence[float], most: int) -> tuple[list[int], list[float]]:
    """The steps and values that are kept of a series at steps 0, 1, 2 …"""
    steps, kept = thinned(np.arange(len(values), dtype=np.uint64), np.array(values, dtype=np.float64), most)
    return steps.tolist(), kept.tolist()


@given(values=st.lists(numbers, min_size=1, max_size=300), most=st.integers(1, 60))
def test_it_is_a_part_of_the_series_in_its_order_no_longer_than_asked_for_and_the_same_each_time(values, most):
    steps, kept = kept_of(values, most)

    assert len(steps) <= most
    assert sorted(set(steps)) == steps
    assert repr([values[step] for step in steps]) == repr(kept)
    assert repr((steps, kept)) == repr(kept_of(values, most))
    assert steps[-1] == len(values) - 1
    assert most == 1 or steps[0] == 0


@given(values=st.lists(numbers, min_size=1, max_size=300), most=st.integers(4, 60))
def test_the_lowest_and_the_highest_of_every_stretch_between_the_ends_are_kept(values, most):
    steps, kept = kept_of(values, most)
    inner = values[1:-1]
    size = max(1, math.ceil(len(inner) / ((most - 2) // 2)))

    for first in range(0, len(inner), size):
        stretch = range(1 + first, 1 + min(first + size, len(inner)))
        there = [values[step] for step in stretch if not math.isnan(values[step])]
        shown = [value for step, value in zip(steps, kept, strict=True) if step in stretch]
        if there:
            told = [value for value in shown if not math.isnan(value)]
            assert (min(there), max(there)) == (min(told), max(told))
        else:
            assert shown


def test_short_series_and_tiny_limits():
    assert ([0, 1], [5.0, 6.0]) == kept_of([5.0, 6.0], 2)
    assert ([2], [7.0]) == kept_of([5.0, 6.0, 7.0], 1)
    assert ([0, 4], [5.0, 9.0]) == kept_of([5.0, 6.0, 7.0, 8.0, 9.0], 3)


def played(store: JobStore, attempts: Sequence[Sequence[MetricBatch]]) -> str:
    """A job whose attempts reported these."""
    job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))
    for number, batches in enumerate(attempts, 1):
        assignment = store.dispatch(job.id, "n1", 0)
        store.begin(assignment)
        for batch, points in enumerate(batches, 1):
            store.append(assignment, batch, [points])
        if number < len(attempts):
            store.recover(assignment, "preempted", cause=Cause.PREEMPTED)
    store.finish(assignment, State.SUCCEEDED, reason="done")
    return job.id


reports = st.lists(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b"]), st.tuples(st.integers(0, 200), st.integers(1, 9)), min_size=1).map(
            lambda spans: MetricBatch(
                series=tuple(
                    MetricSeries(name=name, steps=tuple(range(first, first + count)), values=(float(first),) * count)
                    for name, (first, count) in spans.items()
                )
            )
        ),
        max_size=6,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=30)
@given(attempts=reports, first=st.integers(0, 100), length=st.none() | st.integers(0, 200), archived=st.booleans())
def test_a_query_is_what_the_batches_merge_to_within_the_span_also_from_the_archive(
    tmp_path_factory, attempts, first, length, archived
):
    store = MemoryStore(archive=Archive(ArtifactStore(str(tmp_path_factory.getbasetemp() / "artifacts"))))
    job_id = played(store, attempts)
    last = None if length is None else first + length
    whole = merge_metrics(list(store.metrics(job_id)))
    if archived:
        store.archive(job_id)

    found = Metrics(store).query(job_id, names=(), first_step=first, last_step=last, max_points=0)

    wanted = {
        name: [point for point in sorted(points.items()) if point[0] >= first and (last is None or point[0] <= last)]
        for name, points in whole.items()
    }
    assert {name: points for name, points in wanted.items() if points} == {
        series.name: list(zip(series.steps, series.values, strict=True)) for series in found
    }
    assert sorted(series.name for series in found) == [series.name for series in found]


@pytest.mark.parametrize("held", [64, 1000])
def test_a_history_longer_than_a_query_may_hold_keeps_its_ends_its_lowest_and_its_highest(held):
    store = MemoryStore()
    waves = [math.sin(step / 50) * step for step in range(3000)]
    batches = [
        MetricBatch(
            series=(MetricSeries(name="loss", steps=tuple(range(at, at + 100)), values=tuple(waves[at : at + 100])),)
        )
        for at in range(0, 3000, 100)
    ]
    job_id = played(store, [batches])

    (found,) = Metrics(store, held=held).query(job_id, names=("loss",), first_step=0, last_step=None, max_points=20)

    assert len(found.steps) <= 20
    assert (0, 2999) == (found.steps[0], found.steps[-1])
    assert (min(waves), max(waves)) == (min(found.values), max(found.values))
    assert all(earlier < later for earlier, later in itertools.pairwise(found.steps))
    assert [waves[step] for step in found.steps] == list(found.values)
