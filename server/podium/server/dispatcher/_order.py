"""In which order the waiting jobs of a pool are served."""

import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set
from functools import cached_property
from itertools import chain
from math import inf
from typing import TypeAlias

from podium.server.dispatcher._pool import Demand, Pool, Waiting

#: So many seconds does a slot count that was only just given, lest one project gets all that is free at one look.
_IN_ADVANCE = 60.0
#: The jobs of one class and project that have not had their turn, the first one last.
_Line: TypeAlias = list[Waiting]
#: A project's place among the others, a number that tells it from all others, and its line.
_Head: TypeAlias = tuple[tuple[bool, float], int, _Line]


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
    def shortest(self) -> float:
        """For so many seconds everybody in line may hold slots, at least."""
        return min((job.seconds for job in self._waiting), default=inf)

    def __iter__(self) -> Iterator[Waiting]:
        return chain.from_iterable(self._turns())

    def charge(self, job: Waiting) -> None:
        """The job that was yielded last gets its slots."""
        self._held[job.project] += job.demand.slots
        self._charged = True

    def within(self, job: Waiting) -> bool:
        """Whether its project would stay within its quota."""
        return job.demand.slots <= self._left(job.project)

    def _left(self, project: str) -> float:
        """So many slots may the project get within its quota."""
        return self._quotas[project] - self._held[project] if project in self._quotas else inf

    def _turns(self) -> Iterator[Iterator[Waiting]]:
        """The line in pieces of one project each."""
        for jobs in self._classes():
            lines: dict[str, _Line] = defaultdict(list)
            for job in reversed(jobs):
                lines[job.project].append(job)
            oldest_first = sorted(lines.values(), key=lambda line: line[-1].number)
            heads = [self._head(place, line) for place, line in enumerate(oldest_first)]
            heapq.heapify(heads)
            while heads:
                _, place, line = heapq.heappop(heads)
                yield self._turn(line)
                if line:
                    heapq.heappush(heads, self._head(place, line))

    def _classes(self) -> Iterator[Sequence[Waiting]]:
        """The jobs of each class. Where the highest one takes all that is free, nobody asks for the next."""
        begin = 0
        while begin < len(self._waiting):
            rank = self._waiting[begin].rank
            end = bisect_right(self._waiting, -rank, lo=begin, key=lambda job: -job.rank)
            yield self._waiting[begin:end]
            begin = end

    def _turn(self, line: _Line) -> Iterator[Waiting]:
        """A project's jobs for as long as it is the first: until one is charged for, or its quota tells them apart."""
        self._charged = False
        left, within = self._left(line[-1].project), self.within(line[-1])
        while line and not self._charged and (left == inf or (line[-1].demand.slots <= left) is within):
            yield line.pop()

    def _head(self, place: int, line: _Line) -> _Head:
        job = line[-1]
        used = self._usage.get(job.project, 0.0) + _IN_ADVANCE * self._held[job.project]
        return (not self.within(job), used / self._weights.get(job.project, 1.0)), place, line
