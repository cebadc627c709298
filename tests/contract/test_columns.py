"""Points as bytes say what points say, wherever they lie."""

import struct
from collections.abc import Iterator, Sequence

import pytest

from podium.jobs.errors import NotFoundError
from podium.jobs.events import LogBatch, LogLine, MetricBatch, MetricSeries
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, NewJob

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def running(store: JobStore) -> Assignment:
    job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("cat", "dog")))
    assignment = store.dispatch(job.id, "n1", 0)
    store.begin(assignment)
    return assignment


def read(store: JobStore, job_id: str, names: Sequence[str] = ()) -> dict[str, list[tuple[int, float]]]:
    """The columns, decoded by somebody else."""
    found: dict[str, list[tuple[int, float]]] = {}
    for name, steps, values in store.columns(job_id, names):
        floats = struct.unpack(f"<{len(values) // 8}d", values)
        found.setdefault(name, []).extend(zip(numbers(steps), floats, strict=True))
    return found


def numbers(octets: bytes) -> Iterator[int]:
    number = shift = 0
    for octet in octets:
        number |= (octet & 0x7F) << shift
        shift += 7
        if octet < 0x80:
            yield number
            number = shift = 0


def written(store: JobStore, job_id: str) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for _, batch in store.metrics(job_id):
        for series in batch.series:
            found.setdefault(series.name, []).extend(zip(series.steps, series.values, strict=True))
    return found


@pytest.mark.parametrize("archived", [False, True])
def test_columns_are_the_points_in_their_order_from_the_ledger_and_from_the_archive(world, archived) -> None:
    store = world.trimming
    assignment = running(store)
    for batch in range(1, 12):
        points = MetricSeries(name="loss", steps=(batch, batch + 300), values=(1 / batch, -0.0))
        other = MetricSeries(name="los", steps=(batch,), values=(2.0,))
        lines = LogBatch(lines=(LogLine(text="x"),))
        store.append(assignment, batch, [MetricBatch(series=(points, other, points)), lines])
    store.finish(assignment, State.SUCCEEDED, reason="done")
    if archived:
        store.archive(assignment.job_id)

    found = written(store, assignment.job_id)
    assert (44, 11) == (len(found["loss"]), len(found["los"]))
    assert found == read(store, assignment.job_id)
    assert {"los": found["los"]} == read(store, assignment.job_id, ["los"])
    assert {} == read(store, assignment.job_id, ["top5"])


def test_however_long_a_name_is_and_however_many_points_an_event_has_all_of_them_come(store) -> None:
    assignment, step = running(store), 0
    names = ["m", "m" * 127, "m" * 128, "m" * 300]
    for batch, size in enumerate([1] * 40 + [20_000, 1, 20_000] + [1] * 40, 1):
        steps = tuple(range(step, step := step + size))
        series = (MetricSeries(name=name, steps=steps, values=(float(batch),) * size) for name in names)
        store.append(assignment, batch, [MetricBatch(series=tuple(series))])

    found = written(store, assignment.job_id)
    assert list(range(step)) == [at for at, _ in found["m" * 128]]
    assert found == read(store, assignment.job_id)
    assert {name: found[name] for name in names[1:3]} == read(store, assignment.job_id, names[1:3])


def test_of_a_job_that_is_not_there_they_are_not_found(store) -> None:
    with pytest.raises(NotFoundError):
        list(store.columns("job-none"))
