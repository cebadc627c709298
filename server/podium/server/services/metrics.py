"""Metrics history: each (metric, step) once, and no more points than a reader asked for."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from podium.jobs.events import MetricSeries
from podium.jobs.store import JobStore
from podium.server.services._columns import Column, Columns, Values, points_of
from podium.server.services._pool import Pool
from podium.server.services._thinning import merged, thinned
from podium.server.services._varints import Steps

MOST_POINTS = 10_000
#: Points that one query holds, all series together: 16 bytes each. Beyond that they are thinned on the way.
_HELD = 1 << 21
#: Points, and pieces of columns, that wait to be decoded together: an array costs something even where it is short.
_WAITING_POINTS, _WAITING_PIECES = 1 << 16, 1 << 13


class Metrics:
    """The metrics in the ledger.

    Args:
        store: the ledger.
        held: points that a query may hold before it begins to thin them.
    """

    def __init__(self, store: JobStore, *, held: int = _HELD) -> None:
        self._store = store
        self._held = held

    def query(
        self, job_id: str, *, names: Collection[str], first_step: int, last_step: int | None, max_points: int
    ) -> list[MetricSeries]:
        """The series by name; where attempts overlap, the later one's values.

        Args:
            job_id: the job.
            names: of the metrics; empty for all.
            first_step: from this step on.
            last_step: up to this step, inclusive; None for all.
            max_points: points a series, at most; 0 for `MOST_POINTS`.

        Raises:
            NotFoundError: no such job.
        """
        found = _Found(self._held, first_step, 2**64 - 1 if last_step is None else last_step)
        columns = Columns(names)
        found.read(map(columns.of, self._store.point_rows(job_id)))
        return [
            MetricSeries(name=name, steps=tuple(steps.tolist()), values=tuple(values.tolist()))
            for name, (steps, values) in found.thinned(max_points or MOST_POINTS)
        ]


class _Found:
    """The points that were read so far, by metric; of very many, those that thinning keeps."""

    def __init__(self, most: int, first: int, last: int) -> None:
        self._most, self._first, self._last = most, first, last
        self._held = Pool(room=most + most // 8)
        self._waiting: defaultdict[str, list[Column]] = defaultdict(list)

    def read(self, pages: Iterable[Iterable[Column]]) -> None:
        """Takes points in the order they were written. Within a page they have another one."""
        most, octets, pieces = 8 * min(_WAITING_POINTS, self._most), 0, 0
        for page in pages:
            for column in page:
                self._waiting[column.name].append(column)
                octets += len(column.values)
                pieces += 1
            if octets >= most or pieces >= _WAITING_PIECES:
                self._decode()
                octets = pieces = 0
        self._decode()

    def thinned(self, most: int) -> Iterator[tuple[str, tuple[Steps, Values]]]:
        """The series by name, of each at most so many points."""
        for name in self._held.names:
            yield name, thinned(*merged(*self._held.of(name)), most)

    def _decode(self) -> None:
        for name, columns in self._waiting.items():
            steps, values = points_of(columns)
            wanted = (steps >= self._first) & (steps <= self._last)
            if not wanted.all():
                steps, values = steps[wanted], values[wanted]
            self._held.add(name, steps, values)
        self._waiting.clear()
        if self._held.points > self._most:
            share = max(4, self._most // (2 * len(self._held.names)))
            kept = [(name, steps.copy(), values.copy()) for name, (steps, values) in self.thinned(share)]
            self._held.clear()
            for name, steps, values in kept:
                self._held.add(name, steps, values)
