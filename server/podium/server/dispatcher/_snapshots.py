"""Reads what a plan needs from the ledger, each job no more often than it has to."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from podium.jobs.job import Node
from podium.jobs.store import JobStore, Leases, Usage, utc_now
from podium.server.dispatcher._pool import Pool, Running, Waiting, running, waiting
from podium.server.dispatcher._shares import Sharing, aged

#: Jobs that are read at one look; the rest at the next ones, so that no look outlasts the leader's term.
_MOST_READ = 500
#: Running jobs are read again after so many seconds, as their progress changes: those first that were read longest
#: ago, and at most so many a look.
_AGAIN_AFTER = 2.0
_MOST_AGAIN = 60
#: What callers ask for is found out anew in at most this part of the time, though at least so often.
_TENTH = 10
_FRESH = 1.0


def lasts(cost: float, longest: float) -> float:
    """How long callers are content with what took so many seconds to find out."""
    return min(_TENTH * cost, longest)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All pools at one moment."""

    pools: Mapping[str, Pool]
    usage: Usage
    complete: bool
    """False: there are more jobs than one look reads; nothing should be planned before all are known."""


class Snapshots:
    """What this server knows of the pool. Threads may share it.

    A job in line never changes but for its priority, which changes its number, and its time to try again, which is new
    whenever it comes back. So it is read once while it waits.

    Args:
        store: the ledger.
        leases: how long attempts may take to begin and to stop.
        sharing: weights and quotas of projects.
        clock: the time, aware.
        ticks: tells seconds that only grow.
    """

    def __init__(
        self,
        store: JobStore,
        leases: Leases,
        sharing: Sharing,
        clock: Callable[[], datetime] = utc_now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._leases = leases
        self._sharing = sharing
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, Waiting]] = defaultdict(dict)
        self._lines: dict[str, Sequence[tuple[str, int]]] = {}
        """The last line of each pool. Of a long one most looks find the same."""
        self._running: dict[str, tuple[Running, float]] = {}
        """With the time at which it was read; those that were read longest ago come first."""
        self._latest: Snapshot | None = None
        self._looked, self._cost = float("-inf"), 0.0

    def look(self, usage: Usage | None = None) -> Snapshot:
        """Everything as it stands.

        Args:
            usage: what projects have used, by the leader's own account; None: by what is in the ledger.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        with self._lock:
            return self._look(usage)

    def recent(self) -> Snapshot:
        """What is seen now, or was seen a moment ago: up to a second, where a look takes long.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        with self._lock:
            age = self._ticks() - self._looked
            if self._latest is None or age > lasts(self._cost, _FRESH):
                return self._look(None)
            return self._latest

    def latest(self) -> Snapshot:
        """What was seen last, however long ago.

        Raises:
            UnavailableError: nothing was seen yet, and the ledger cannot be reached.
        """
        with self._lock:
            return self._latest or self._look(None)

    def forget(self, job_id: str) -> None:
        """The job has just been started or asked to stop, so it is read again."""
        with self._lock:
            self._running.pop(job_id, None)
            for known in self._waiting.values():
                known.pop(job_id, None)

    def _look(self, usage: Usage | None) -> Snapshot:
        began = self._ticks()
        now = self._clock()
        nodes = self._store.nodes()
        by_pool: dict[str, list[Node]] = defaultdict(list)
        for node in nodes:
            by_pool[node.pool].append(node)
        budget = _MOST_READ - self._read_running(nodes, now.timestamp())
        lines = {pool: self._store.line(pool) for pool in by_pool}
        for pool, line in lines.items():
            budget -= self._read_waiting(pool, line, budget)
        held = {pool: self._held_in(machines) for pool, machines in by_pool.items()}
        counted = Counter({(pool, job.project): 0 for pool, jobs in held.items() for job in jobs.values()})
        for pool, jobs in held.items():
            for job in jobs.values():
                counted[pool, job.project] += job.slots
        used = aged(usage or self._store.usage(), counted, now, self._sharing.half_life)
        self._latest = Snapshot(
            pools={
                pool: Pool(
                    name=pool,
                    now=now.timestamp(),
                    grace=self._leases.grace,
                    nodes=machines,
                    waiting=tuple(self._waiting[pool].values()),
                    running=held[pool],
                    usage={project: used.seconds[its, project] for its, project in used.seconds if its == pool},
                    sharing=self._sharing,
                )
                for pool, machines in by_pool.items()
            },
            usage=used,
            complete=budget > 0,
        )
        self._looked = self._ticks()
        self._cost = self._looked - began
        return self._latest

    def _read_running(self, nodes: Sequence[Node], now: float) -> int:
        """Reads who is new in a slot, and a few of the others again; how many that were."""
        seen = {slot.job_id for node in nodes for slot in node.slots if slot.job_id}
        self._running = {job_id: known for job_id, known in self._running.items() if job_id in seen}
        unread = [job_id for job_id in sorted(seen) if job_id not in self._running][:_MOST_READ]
        old = [job_id for job_id, (_, read) in self._running.items() if now - read > _AGAIN_AFTER][:_MOST_AGAIN]
        for job, assignment, _ in self._store.holding(unread + old):
            before = self._running.pop(job.id, None)
            known = running(job, assignment, self._leases, before[0] if before else None, now)
            self._running[job.id] = known, now
        return len(unread)

    def _read_waiting(self, pool: str, line: Sequence[tuple[str, int]], budget: int) -> int:
        """Brings what is known of the line up to date; how many jobs were read for it."""
        known = self._waiting[pool]
        if len(known) == len(line) and line == self._lines.get(pool):
            return 0
        self._lines[pool] = line
        unread = {
            job_id: number
            for job_id, number in line
            if (before := known.get(job_id)) is None or before.number != number
        }
        asked = list(unread)[: max(budget, 0)]
        fresh = {job.id: waiting(job, unread[job.id], self._leases) for job in self._store.known(asked)}
        self._waiting[pool] = {
            job_id: job for job_id, _ in line if (job := fresh.get(job_id) or known.get(job_id)) is not None
        }
        return len(unread)

    def _held_in(self, nodes: Sequence[Node]) -> Mapping[str, Running]:
        ids = {slot.job_id: None for node in nodes for slot in node.slots if slot.job_id}
        return {job_id: self._running[job_id][0] for job_id in ids if job_id in self._running}
