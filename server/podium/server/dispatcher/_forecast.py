"""Where in line a job stands, and when it is likely to start."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from podium.server.dispatcher._order import Order
from podium.server.dispatcher._pool import Demand, Pool, Waiting


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is foreseen for a waiting job."""

    position: int
    """1: served first."""
    start: float
    """Seconds since 1970; infinite: it cannot be told."""


def forecast(pool: Pool) -> Mapping[str, Forecast]:
    """Gives each job in turn the slots that are free first, as if nobody new came and nobody was interrupted.

    A running job is taken to end when its progress says so, or else at its bound; one that waits, to take as long as it
    may. What has no bound blocks its slots for good: nothing is foreseen from what cannot be known.
    """
    order, calendar = Order(pool), _Calendar(pool)
    found: dict[str, Forecast] = {}
    for job in order:
        found[job.id] = Forecast(position=len(found) + 1, start=calendar.book(job))
        order.charge(job)
    return found


class _Calendar:
    """From when on each slot is free."""

    def __init__(self, pool: Pool) -> None:
        self._now = pool.now
        self._machines = sorted(pool.ready, key=lambda node: node.id)
        self._free_from = [{slot.index: self._end(pool, slot.job_id) for slot in node.slots} for node in self._machines]
        self._heaps: dict[Demand, list[tuple[float, int]]] = {}

    def _end(self, pool: Pool, job_id: str) -> float:
        if not job_id:
            return pool.now
        return max(pool.running[job_id].expected, pool.now) if job_id in pool.running else inf

    def book(self, job: Waiting) -> float:
        """The job's start; its slots are taken from then on."""
        heap = self._heaps.get(job.demand)
        if heap is None:
            heap = self._heaps[job.demand] = self._heap(job.demand)
        found: list[tuple[float, int]] = []
        while heap and len(found) < job.demand.nodes:
            start, place = heap[0]
            # Slots are only ever taken, so an old entry is at worst too early.
            if (present := self._earliest(place, job.demand)) != start:
                heapq.heapreplace(heap, (present, place))
            elif start == inf:
                break
            else:
                found.append(heapq.heappop(heap))
        start = max((start for start, _ in found), default=inf)
        if len(found) < job.demand.nodes:
            start = inf
        start = max(start, job.retry)
        for _, place in found:
            if start < inf:
                self._take(place, job, start)
            heapq.heappush(heap, (self._earliest(place, job.demand), place))
        return start

    def _heap(self, demand: Demand) -> list[tuple[float, int]]:
        places = [place for place, node in enumerate(self._machines) if demand.nodes == 1 or node.address]
        heap = [(start, place) for place in places if (start := self._earliest(place, demand)) < inf]
        heapq.heapify(heap)
        return heap

    def _suited(self, place: int, demand: Demand) -> list[tuple[float, int]]:
        """The slots of a machine that would do, those first that are free first."""
        slots = (slot for slot in self._machines[place].slots if demand.suits(slot))
        return sorted((self._free_from[place][slot.index], slot.index) for slot in slots)

    def _earliest(self, place: int, demand: Demand) -> float:
        suited = self._suited(place, demand)
        return suited[demand.gpus - 1][0] if len(suited) >= demand.gpus else inf

    def _take(self, place: int, job: Waiting, start: float) -> None:
        for _, slot in self._suited(place, job.demand)[: job.demand.gpus]:
            self._free_from[place][slot] = start + job.seconds
