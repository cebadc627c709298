"""In which order the waiting jobs of a pool are served."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import TypeAlias

from podium.server.dispatcher._pool import Demand, Pool, Waiting

#: So many seconds does a slot count that was only just given, lest one project gets all that is free at one look.
_IN_ADVANCE = 60.0
#: A project's place among the others, a number that tells it from all others, its next job, and the rest.
_Head: TypeAlias = tuple[tuple[bool, float], int, Waiting, Iterator[Waiting]]


class Order:
    """The line, to be gone through once: whom it yields may be charged for, and the rest is ordered accordingly.

    By class; within a class, whoever stays within its project's quota first; then by what its project has used and
    holds, over its weight; within a project by creation.
    """

    def __init__(self, pool: Pool) -> None:
        self._usage = pool.usage
        self._weights = pool.sharing.weights
        self._quotas = pool.sharing.quotas
        self._held = Counter(pool.held)
        self._charged = False
        self._waiting = pool.waiting
        self.highest = max((job.rank for job in pool.waiting[:1]), default=0)
        """The highest class, which the first one has."""

    @cached_property
    def demands(self) -> Set[Demand]:
        """Everything that is asked for."""
        return {job.demand for job in self._waiting}

    @cached_property
    def _lines(self) -> Mapping[int, Mapping[str, Sequence[Waiting]]]:
        """The jobs of each class by project. Where no slot is free, nobody asks."""
        found: dict[int, dict[str, list[Waiting]]] = {}
        rank = 0
        lines: dict[str, list[Waiting]] = {}
        for job in self._waiting:
            if job.rank != rank:
                rank = job.rank
                lines = found.setdefault(rank, defaultdict(list))
            lines[job.project].append(job)
        return found

    def __iter__(self) -> Iterator[Waiting]:
        for rank in sorted(self._lines, reverse=True):
            yield from self._of_class(self._lines[rank])

    def charge(self, job: Waiting) -> None:
        """The job that was yielded last gets its slots."""
        self._held[job.project] += job.demand.slots
        self._charged = True

    def within(self, job: Waiting) -> bool:
        """Whether its project would stay within its quota."""
        quota = self._quotas.get(job.project)
        return quota is None or self._held[job.project] + job.demand.slots <= quota

    def _of_class(self, lines: Mapping[str, Sequence[Waiting]]) -> Iterator[Waiting]:
        oldest_first = sorted(lines.values(), key=lambda line: line[0].number)
        heads = [self._head(place, line[0], iter(line[1:])) for place, line in enumerate(oldest_first)]
        heapq.heapify(heads)
        while heads:
            _, place, job, rest = heapq.heappop(heads)
            while True:
                self._charged = False
                yield job
                following = next(rest, None)
                if following is None:
                    break
                if self._charged or following.project in self._quotas:
                    heapq.heappush(heads, self._head(place, following, rest))
                    break
                # Nothing has changed, so its project is still the first.
                job = following

    def _head(self, place: int, job: Waiting, rest: Iterator[Waiting]) -> _Head:
        used = self._usage.get(job.project, 0.0) + _IN_ADVANCE * self._held[job.project]
        return (not self.within(job), used / self._weights.get(job.project, 1.0)), place, job, rest
