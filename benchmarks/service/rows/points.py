"""Points from an attempt's writer through the ledger and the server to one watcher, against MLflow's log_batch."""

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.rows import Row, ratios, turns
from benchmarks.service import site
from benchmarks.service.rows.watchers import running
from benchmarks.service.watchers import Seen, Watching
from podium.api.v1 import job_service_pb2 as pb
from podium.jobs.states import State
from podium.worker.stop import StopFlag
from podium.worker.writer import Writer

_METRICS = 100
_POINTS = 1_000_000
_WANTED = 100_000.0
_PACE, _SECONDS, _SLOWEST = 10_000, 5.0, 0.1
#: Of MLflow's in a turn: some ten seconds.
_BATCHES = 10


def measure(count: int) -> list[Row]:
    """The rows.

    Args:
        count: turns that a median is of.
    """
    with site.podium() as ours, site.mlflow() as peer:
        rates, slow, logged = turns(count, lambda: _fast(ours), lambda: _paced(ours), lambda: _mlflow(peer.address))
    against, spread = ratios(rates, logged)
    rate, what = statistics.median(rates), "metric points, an attempt's writer to one watcher"
    return [
        Row(
            what=f"{what}, as fast as can be",
            ours=f"{rate:,.0f} points/s",
            peer=f"{_WANTED:,.0f} points/s",
            ratio=rate / _WANTED,
            bar=">= 1",
            spread=(min(rates) / _WANTED, max(rates) / _WANTED),
        ),
        Row(
            what=f"{what}, against MLflow's log_batch of 1,000",
            ours=f"{rate:,.0f} points/s",
            peer=f"MLflow: {statistics.median(logged):,.0f} points/s",
            ratio=against,
            bar=">= 10",
            spread=spread,
        ),
        Row(
            what=f"{what}, at {_PACE:,} points/s: lag p99",
            ours=f"{statistics.median(slow) * 1e3:,.0f} ms",
            peer=f"{_SLOWEST * 1e3:.0f} ms",
            ratio=statistics.median(slow) / _SLOWEST,
            bar="<= 1",
            spread=(min(slow) / _SLOWEST, max(slow) / _SLOWEST),
        ),
    ]


def mlflow_points(address: str, *options: str) -> dict[str, float]:
    """What benchmarks.service.mlflow_points tells."""
    command = [site.mlflow_python(), "-m", "benchmarks.service.mlflow_points", address, *options]
    told: dict[str, float] = json.loads(
        subprocess.run(command, cwd=site.ROOT, check=True, capture_output=True, text=True).stdout
    )
    return told


def _mlflow(address: str) -> float:
    return mlflow_points(address, str(_BATCHES))["logged"]


@contextmanager
def _watched(ours: site.Site) -> Iterator[tuple[Writer, list[Seen]]]:
    """A writer whose job has one watcher, and at the end what that has seen."""
    assignment = running(ours, 0)
    request = pb.WatchJobRequest(job_id=assignment.job_id, after_sequence=3, batched=True).SerializeToString()
    watching = Watching(ours.server, "/podium.api.v1.JobService/WatchJob", [request], connections=1)
    writer, seen = Writer(ours.store, assignment, StopFlag()), list[Seen]()
    try:
        yield writer, seen
        writer.flush()
    finally:
        writer.close()
    ours.store.finish(assignment, State.SUCCEEDED, reason="done")
    seen.append(watching.seen())


def _fast(ours: site.Site) -> float:
    """Points a second, from the first report until the watcher has the last."""
    values = {f"m{number}": 0.5 for number in range(_METRICS)}
    with _watched(ours) as (writer, seen):
        began = time.time()
        for step in range(_POINTS // _METRICS):
            writer.metrics(step, values)
    assert seen[0].points == _POINTS
    return _POINTS / (seen[0].last - began)


def _paced(ours: site.Site) -> float:
    """The lag that 99 % of the points stay within, in seconds: each point's value is the time of its report."""
    with _watched(ours) as (writer, seen):
        began = time.perf_counter()
        for step in range(round(_PACE * _SECONDS / _METRICS)):
            time.sleep(max(0.0, began + step * _METRICS / _PACE - time.perf_counter()))
            writer.metrics(step, dict.fromkeys((f"m{number}" for number in range(_METRICS)), time.time()))
    return seen[0].lags[1]
