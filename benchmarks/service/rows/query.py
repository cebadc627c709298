"""QueryMetrics of a million points, thinned to a thousand: one series in large batches, and as an attempt writes."""

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.rows import Row, turns
from benchmarks.service import site
from benchmarks.service.load import Load, put
from benchmarks.service.rows.points import mlflow_points
from benchmarks.service.rows.watchers import running
from podium.api.v1 import metric_service_pb2 as pb
from podium.jobs.events import MetricBatch, MetricSeries

_SECONDS = 3.0
_SLOWEST, _MOST_BYTES = 0.1, 50 << 20
#: Batches, points of each series in one, series.
_SHAPES = {"in 1,000 batches": (1000, 1000, 1), "of 10 metrics in 20,000 batches, one metric": (20_000, 5, 10)}


def measure(count: int) -> list[Row]:
    """The rows.

    Args:
        count: turns that a median is of.
    """
    with site.podium() as ours, site.mlflow() as peer:
        jobs = {what: _job(ours, *shape) for what, shape in _SHAPES.items()}
        read = mlflow_points(peer.address, "30", "read")
        found = turns(count, *(partial(_query, ours, job_id) for job_id in jobs.values()))
    theirs = f"MLflow's get_metric_history of {read['points']:,}: {read['read']:.2f} s"
    rows = [_row(what, theirs, [load for load, _ in some]) for what, some in zip(jobs, found, strict=True)]
    extra = max(held for some in found for _, held in some)
    memory = Row(
        what="QueryMetrics, 1,000,000 points to 1,000: memory on top",
        ours=f"{extra / 2**20:.0f} MiB",
        peer=f"{_MOST_BYTES >> 20} MiB",
        ratio=extra / _MOST_BYTES,
        bar="<= 1",
    )
    return [*rows, memory]


def _row(what: str, theirs: str, loads: list[Load]) -> Row:
    times = [load.p50 for load in loads]
    cpu = statistics.median(load.cpu for load in loads)
    return Row(
        what=f"QueryMetrics, 1,000,000 points {what}, to 1,000: p50",
        ours=f"{statistics.median(times) * 1e3:,.0f} ms, of CPU {cpu * 1e3:,.0f}",
        peer=f"100 ms; {theirs}",
        ratio=statistics.median(times) / _SLOWEST,
        bar="<= 1",
        spread=(min(times) / _SLOWEST, max(times) / _SLOWEST),
    )


def _job(ours: site.Site, batches: int, points: int, metrics: int) -> str:
    assignment = running(ours, metrics)
    made = [_batch(number * points, points, metrics) for number in range(batches)]
    for number in range(0, batches, 50):
        ours.store.append(assignment, number + 1, made[number : number + 50])
    return assignment.job_id


def _batch(first: int, points: int, metrics: int) -> MetricBatch:
    steps = tuple(range(first, first + points))
    values = tuple(1 / (step + 1) for step in steps)
    return MetricBatch(
        series=tuple(MetricSeries(name=f"m{number}", steps=steps, values=values) for number in range(metrics))
    )


def _query(ours: site.Site, job_id: str) -> tuple[Load, int]:
    request = pb.QueryMetricsRequest(job_id=job_id, names=["m0"], max_points=1000).SerializeToString()
    before = ours.server.resident_bytes()
    with _most(ours.server) as held:
        load = put(ours.server, "/podium.api.v1.MetricService/QueryMetrics", request, clients=1, seconds=_SECONDS)
    return load, held[0] - before


@contextmanager
def _most(serving: site.Serving) -> Iterator[list[int]]:
    """The most that a server holds meanwhile, in bytes, looked at every few milliseconds."""
    held, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            held[0] = max(held[0], serving.resident_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield held
    finally:
        over.set()
        looking.join()
