"""Metrics history: each (metric, step) once, and no more points than a reader asked for."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from podium.jobs.events import MetricSeries
from podium.jobs.store import Column, JobStore
from podium.server.services._thinning import Steps, Values, decoded, merged, thinned

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
        found.read(self._store.columns(job_id, names))
        return [
            MetricSeries(name=name, steps=tuple(steps.tolist()), values=tuple(values.tolist()))
            for name, (steps, values) in found.thinned(max_points or MOST_POINTS)
        ]


class _Found:
    """The points that were read so far, by metric; of very many, those that thinning keeps."""

    def __init__(self, most: int, first: int, last: int) -> None:
        self._most, self._first, self._last = most, first, last
        self._held = 0
        self._parts: defaultdict[str, tuple[list[Steps], list[Values]]] = defaultdict(lambda: ([], []))
        self._waiting: defaultdict[str, list[Column]] = defaultdict(list)

    def read(self, columns: Iterable[Column]) -> None:
        """Takes points in the order they were written."""
        most, octets, pieces = 8 * min(_WAITING_POINTS, self._most), 0, 0
        for column in columns:
            self._waiting[column[0]].append(column)
            octets += len(column[2])
            pieces += 1
            if octets >= most or pieces == _WAITING_PIECES:
                self._decode()
                octets = pieces = 0
        self._decode()

    def thinned(self, most: int) -> Iterator[tuple[str, tuple[Steps, Values]]]:
        """The series by name, of each at most so many points."""
        for name in sorted(self._parts):
            yield name, self._merged(name, most)

    def _decode(self) -> None:
        for name, columns in self._waiting.items():
            steps = decoded(b"".join([steps for _, steps, _ in columns]))
            values = np.frombuffer(b"".join([values for _, _, values in columns]), "<f8")
            wanted = (steps >= self._first) & (steps <= self._last)
            if not wanted.all():
                steps, values = steps[wanted], values[wanted]
            if len(steps):
                self._parts[name][0].append(steps)
                self._parts[name][1].append(values)
                self._held += len(steps)
        self._waiting.clear()
        if self._held > self._most:
            share = max(4, self._most // (2 * len(self._parts)))
            self._held = 0
            for name, parts in self._parts.items():
                steps, values = self._merged(name, share)
                parts[0].append(steps)
                parts[1].append(values)
                self._held += len(steps)

    def _merged(self, name: str, most: int) -> tuple[Steps, Values]:
        parts = self._parts[name]
        # One after the other, so that there is never a second copy of both.
        steps = np.concatenate(parts[0])
        parts[0].clear()
        values = np.concatenate(parts[1])
        parts[1].clear()
        return thinned(*merged(steps, values), most)
