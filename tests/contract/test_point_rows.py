"""Points as bytes say what points say, wherever they lie."""

from collections.abc import Sequence

import pytest

from podium.api.v1.event_pb2 import JobEvent
from podium.jobs.errors import NotFoundError
from podium.jobs.events import LogBatch, LogLine, MetricBatch, MetricSeries
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, NewJob
from podium.server.services.metrics import Metrics

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def running(store: JobStore) -> Assignment:
    job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("cat", "dog")))
    assignment = store.dispatch(job.id, "n1", 0)
    store.begin(assignment)
    return assignment


def read(store: JobStore, job_id: str) -> list[tuple[int, str, int, float]]:
    """The points in the rows, parsed by somebody else."""
    return [
        (event.attempt, series.name, *point)
        for page in store.point_rows(job_id)
        for event in map(JobEvent.FromString, page)
        for series in event.metrics.series
        for point in zip(series.steps, series.values, strict=True)
    ]


def written(store: JobStore, job_id: str) -> list[tuple[int, str, int, float]]:
    return [
        (attempt, series.name, *point)
        for attempt, batch in store.metrics(job_id)
        for series in batch.series
        for point in zip(series.steps, series.values, strict=True)
    ]


def queried(store: JobStore, job_id: str, names: Sequence[str] = ()) -> dict[str, list[tuple[int, float]]]:
    found = Metrics(store).query(job_id, names=names, first_step=0, last_step=None, max_points=0)
    return {series.name: list(zip(series.steps, series.values, strict=True)) for series in found}


@pytest.mark.parametrize("archived", [False, True])
def test_the_rows_have_the_points_in_their_order_from_the_ledger_and_from_the_archive(world, archived) -> None:
    store = world.trimming
    assignment = running(store)
    for batch in range(1, 12):
        points = MetricSeries(name="loss", steps=(batch, batch + 300), values=(1 / batch, -0.0))
        again = MetricSeries(name="loss", steps=(batch, batch + 1), values=(2 / batch, 3.0))
        other = MetricSeries(name="los", steps=(batch,), values=(2.0,))
        lines = LogBatch(lines=(LogLine(text="x"),))
        store.append(assignment, batch, [MetricBatch(series=(points, other, again)), lines])
    store.finish(assignment, State.SUCCEEDED, reason="done")
    if archived:
        store.archive(assignment.job_id)

    found = written(store, assignment.job_id)
    assert 55 == len(found)
    assert found == read(store, assignment.job_id)
    last = {name: {step: value for _, its, step, value in found if its == name} for name in ("los", "loss")}
    assert {name: sorted(points.items()) for name, points in last.items()} == queried(store, assignment.job_id)
    assert {"los": sorted(last["los"].items())} == queried(store, assignment.job_id, ["los"])
    assert {} == queried(store, assignment.job_id, ["top5"])


def test_however_long_a_name_is_and_however_many_points_an_event_has_all_of_them_come(store) -> None:
    assignment, step = running(store), 0
    names = ["m", "m" * 127, "m" * 128, "m" * 300]
    for batch, size in enumerate([1] * 40 + [4_000, 1, 4_000] + [1] * 40, 1):
        steps = tuple(range(step, step := step + size))
        series = (MetricSeries(name=name, steps=steps, values=(float(batch),) * size) for name in names)
        store.append(assignment, batch, [MetricBatch(series=tuple(series))])

    found = written(store, assignment.job_id)
    assert found == read(store, assignment.job_id)
    whole = queried(store, assignment.job_id)
    assert names == list(whole)
    assert [(at, value) for _, name, at, value in found if name == names[2]] == whole[names[2]]
    assert {name: whole[name] for name in names[1:3]} == queried(store, assignment.job_id, names[1:3])


def test_of_a_job_that_is_not_there_they_are_not_found(store) -> None:
    with pytest.raises(NotFoundError):
        list(store.point_rows("job-none"))
