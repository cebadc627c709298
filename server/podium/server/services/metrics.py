"""Metrics history: each (metric, step) once, and no more points than a reader asked for."""

from collections.abc import Collection, Sequence

from podium.jobs.events import MetricSeries, merge_metrics
from podium.jobs.store import JobStore

MOST_POINTS = 10_000


class Metrics:
    """The metrics in the ledger."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def query(
        self, job_id: str, *, names: Collection[str], first_step: int, last_step: int | None, max_points: int
    ) -> list[MetricSeries]:
        """The series by name; where attempts overlap, the later one's values."""
        merged = merge_metrics(list(self._store.metrics(job_id)))
        series = []
        for name in sorted(merged):
            if names and name not in names:
                continue
            points = sorted(
                (step, value)
                for step, value in merged[name].items()
                if step >= first_step and (last_step is None or step <= last_step)
            )
            if points:
                steps, values = zip(*thinned(points, max_points or MOST_POINTS), strict=True)
                series.append(MetricSeries(name=name, steps=steps, values=values))
        return series


def thinned(points: Sequence[tuple[int, float]], most: int) -> Sequence[tuple[int, float]]:
    """Every n-th point, at most `most`, and always the first and the last; with most = 1 the last."""
    if len(points) <= most:
        return points
    if most == 1:
        return points[-1:]
    stride = -(-(len(points) - 1) // (most - 1))
    kept = list(points[:-1:stride])
    return [*kept, points[-1]]
