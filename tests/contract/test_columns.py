"""Points as bytes say what points say, wherever they lie."""

import struct

import pytest

from podium.api.v1.metric_pb2 import MetricSeries as Series
from podium.jobs.errors import NotFoundError
from podium.jobs.events import LogBatch, LogLine, MetricBatch, MetricSeries
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import JobStore, NewJob

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def read(store: JobStore, job_id: str) -> list[MetricSeries]:
    """The columns, decoded by somebody else."""
    return [
        MetricSeries(
            name=name,
            steps=tuple(Series.FromString(b"\x12" + bytes([len(steps)]) + steps).steps),
            values=struct.unpack(f"<{len(values) // 8}d", values),
        )
        for name, steps, values in store.columns(job_id)
    ]


@pytest.mark.parametrize("archived", [False, True])
def test_columns_are_the_points_in_their_order_from_the_ledger_and_from_the_archive(world, archived) -> None:
    store = world.trimming
    job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("cat", "dog")))
    assignment = store.dispatch(job.id, "n1", 0)
    store.begin(assignment)
    for batch in range(1, 12):
        points = MetricSeries(name="loss", steps=(batch, batch + 300), values=(1 / batch, -0.0))
        lines = LogBatch(lines=(LogLine(text="x"),))
        store.append(assignment, batch, [MetricBatch(series=(points, points)), lines])
    written = [series for _, points in store.metrics(job.id) for series in points.series]
    store.finish(assignment, State.SUCCEEDED, reason="done")
    if archived:
        store.archive(job.id)

    assert 22 == len(written)
    assert written == read(store, job.id)
    assert [] == list(store.columns(job.id, ["top5"]))


def test_of_a_job_that_is_not_there_they_are_not_found(store) -> None:
    with pytest.raises(NotFoundError):
        list(store.columns("job-none"))
