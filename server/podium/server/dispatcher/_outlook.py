"""What a queued job is told: its place in line, what it waits for in words, and when it is likely to start."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from math import inf
from typing import NamedTuple

from podium.api.v1 import job_pb2
from podium.jobs import wire
from podium.jobs.blocking import in_thread
from podium.jobs.errors import UnavailableError
from podium.jobs.job import Job, NodeState, QueueInfo
from podium.jobs.spec import Resources
from podium.server.dispatcher._forecast import Forecast, forecast
from podium.server.dispatcher._plan import Held, plan
from podium.server.dispatcher._pool import Demand, Pool, demand_of
from podium.server.dispatcher._snapshots import Snapshots, lasts

_MOST_NAMED = 3
#: Seconds for which what was made of a long line is told at most.
_LONGEST = 5.0
#: What was found out is told for at least so many seconds: the dispatcher itself looks less often.
_LEAST = 0.1


class Outlook:
    """Explains queued jobs, on a server that leads and on one that does not.

    Args:
        snapshots: knows what waits and what runs.
        ticks: tells seconds that only grow.
    """

    def __init__(self, snapshots: Snapshots, ticks: Callable[[], float] = time.monotonic) -> None:
        self._snapshots = snapshots
        self._ticks = ticks
        self._lock = threading.Lock()
        self._view = _View(scenes={}, until=-inf, late=-inf)
        self._looking = False

    def explained(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs, those that are queued with everything that can be said of their waiting.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        if not any(job.queue for job in jobs):
            return list(jobs)
        view = self._current()
        return [_explained(job, view) for job in jobs]

    def of_serialized(self, data: bytes, place: Callable[[str, str], int | None]) -> bytes:
        """As `explained`, of one queued job as a message: what it lacks, as a message, too.

        Args:
            data: the job's message.
            place: asks for the place of a job in the line of a pool; only of one that nobody foresaw there.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        job = job_pb2.Job.FromString(data)
        retry_time = job.retry_time.ToDatetime(tzinfo=UTC) if job.HasField("retry_time") else None
        waiter = _waiter(job, _resources(job.spec.resources.SerializeToString()), retry_time)
        queue = self._current().about(waiter, lambda: place(waiter.id, waiter.pool) or 0)
        return job_pb2.Job(queue=wire.to_proto(queue)).SerializeToString()

    def _current(self) -> "_View":
        view, now = self._view, self._ticks()
        if now > view.late:
            return in_thread(self._look)
        if now > view.until and not self._looking:
            # Nobody waits for it, since everybody would.
            self._looking = True
            try:
                threading.Thread(target=self._look_again, name="podium-outlook", daemon=True).start()
            except RuntimeError:  # the process has no thread left; whoever comes next tries again
                self._looking = False
        return view

    def _look_again(self) -> None:
        try:
            with suppress(UnavailableError):  # whoever needs it next is told
                self._look()
        finally:
            self._looking = False

    def _look(self) -> "_View":
        # One at a time, as the others want to know the same.
        with self._lock:
            began = self._ticks()
            if began > self._view.until:
                scenes = {name: _Scene(pool) for name, pool in self._snapshots.recent().pools.items()}
                span = lasts(self._ticks() - began, _LONGEST)
                until = began + max(span, _LEAST)
                self._view = _View(scenes=scenes, until=until, late=until + span)
            return self._view


class _Waiter(NamedTuple):
    """A queued job, as far as somebody who explains has to know it."""

    id: str
    project: str
    pool: str
    demand: Demand
    state_reason: str
    retry_time: datetime | None


def _waiter(job: Job | job_pb2.Job, wanted: Resources, retry_time: datetime | None) -> _Waiter:
    return _Waiter(job.id, job.project, wanted.pool, demand_of(wanted), job.state_reason, retry_time)


def _explained(job: Job, view: "_View") -> Job:
    if (queue := job.queue) is None:
        return job
    waiter = _waiter(job, job.spec.resources, job.retry_time)
    return replace(job, queue=view.about(waiter, lambda: queue.position))


@lru_cache(maxsize=1024)  # few are asked for, by many jobs
def _resources(message: bytes) -> Resources:
    return wire.from_bytes(Resources, message)


@dataclass(frozen=True, kw_only=True)
class _View:
    """All pools at one moment."""

    scenes: dict[str, "_Scene"]
    until: float
    """By `ticks`: when somebody is to look again."""
    late: float
    """When it is too old to be told."""

    def about(self, job: _Waiter, place: Callable[[], int]) -> QueueInfo:
        if (scene := self.scenes.get(job.pool)) is None:
            # A pool that no machine is in is in no snapshot. Its scene costs as much as all else that a caller is told.
            scene = self.scenes[job.pool] = _Scene(Pool(name=job.pool))
        return scene.about(job, place)


class _Scene:
    """One pool at one moment, and what would happen there now."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lacks: dict[Demand, str | None] = {}
        self._rooms: dict[Demand, bool] = {}
        # What takes long is no cached_property: before Python 3.12 all scenes wait for one another's.
        self._plan, self._forecast, self._busy = plan(pool), forecast(pool), _busy(pool)

    @cached_property
    def _placed(self) -> frozenset[str]:
        return frozenset(placement.job_id for placement in self._plan.placements)

    def about(self, job: _Waiter, place: Callable[[], int]) -> QueueInfo:
        foreseen = self._forecast.get(job.id)
        start = foreseen.start if foreseen else inf
        if (held := self._plan.held.get(job.id)) is not None:
            start = min(start, held.until)
        return QueueInfo(
            position=foreseen.position if foreseen else place(),
            wait_reason=self._reason(job, foreseen),
            estimated_start_time=datetime.fromtimestamp(start, UTC) if start < inf else None,
        )

    def _reason(self, job: _Waiter, foreseen: Forecast | None) -> str:
        pool, demand = self._pool, job.demand
        if not pool.ready:
            return self._nobody
        if (lacking := self._lacking(demand)) is not None:
            return lacking
        if job.retry_time is not None and job.retry_time.timestamp() > pool.now:
            return f"tried again at {job.retry_time:%H:%M:%S} UTC, as the last attempt failed: {job.state_reason}"
        if (held := self._plan.held.get(job.id)) is not None:
            return self._held(demand, held)
        if job.id in self._placed:
            return f"about to start in pool {pool.name}: {self._busy} slots are busy"
        if self._beyond(job, demand):
            quota, project = pool.sharing.quotas[job.project], job.project
            return (
                f"project {project} holds {pool.held.get(project, 0)} of its quota of {quota} slots of pool "
                f"{pool.name}: it gets more once nobody within a quota waits; {self._busy} busy"
            )
        if foreseen is None:
            return f"has just joined the line of pool {pool.name}: {self._busy} slots are busy"
        if demand.nodes > 1 or not self._has_room(demand):
            return f"waiting for {_slots(demand, 'free ')} in pool {pool.name}: {self._busy} busy"
        return f"waiting for its turn in pool {pool.name}: free slots go to jobs before it; {self._busy} busy"

    # What is the same for many jobs is worked out once.

    @cached_property
    def _nobody(self) -> str:
        return _nobody(self._pool)

    def _lacking(self, demand: Demand) -> str | None:
        if demand not in self._lacks:
            self._lacks[demand] = _lacking(self._pool, demand)
        return self._lacks[demand]

    def _has_room(self, demand: Demand) -> bool:
        if demand not in self._rooms:
            self._rooms[demand] = _has_room(self._pool, demand)
        return self._rooms[demand]

    def _beyond(self, job: _Waiter, demand: Demand) -> bool:
        quota = self._pool.sharing.quotas.get(job.project)
        return quota is not None and self._pool.held.get(job.project, 0) + demand.slots > quota

    def _held(self, demand: Demand, held: Held) -> str:
        names = _named(held.machines)
        if held.stopping:
            return f"about to start in pool {self._pool.name}: jobs on {names} are saving their work to make room"
        return (
            f"waiting for {_slots(demand, 'free ')} in pool {self._pool.name}: {self._busy} busy; {names} kept for it"
        )


def _busy(pool: Pool) -> str:
    """How many slots of the pool are busy."""
    slots = [slot for node in pool.ready for slot in node.slots if slot.job_id or not slot.trouble]
    return f"{sum(bool(slot.job_id) for slot in slots)} of {len(slots)}"


def _nobody(pool: Pool) -> str:
    """Why no machine of the pool takes jobs."""
    alive = [node for node in pool.nodes if node.state is not NodeState.LOST]
    if not alive:
        how = "`podium up --local` or `python -m podium.worker`"
        if pool.name != Resources().pool:
            how = f"`python -m podium.worker --pool {pool.name}`, or submit with another resources.pool"
        return f"no worker in pool {pool.name}: start one with {how}"
    states = [f"{node.id} is {node.state.name.lower()}{f' ({node.reason})' if node.reason else ''}" for node in alive]
    return (
        f"no worker in pool {pool.name} takes jobs: {_named(states)}; "
        "start another with `python -m podium.worker`, or see `podium nodes`"
    )


def _lacking(pool: Pool, demand: Demand) -> str | None:
    """What the pool would lack even if it were empty; None: nothing."""
    start = f"needs {_slots(demand)}"
    kind = Demand(model=demand.model, memory_gib=demand.memory_gib)
    sizes = [sum(kind.suits(slot) for slot in node.slots) for node in pool.ready]
    largest = max(sizes)
    if not any(not slot.trouble for node in pool.ready for slot in node.slots):
        troubles = sorted({slot.trouble for node in pool.ready for slot in node.slots})
        return f"no slot in pool {pool.name} takes jobs: {_named(troubles)}; see `podium nodes`"
    if largest == 0:
        offered = sorted(
            {f"{slot.model} ({slot.memory_bytes >> 30} GiB)" for node in pool.ready for slot in node.slots}
        )
        return (
            f"{start}; pool {pool.name} has {_named(offered)}: start a machine that has them, or submit with another "
            f"{'resources.gpu_model' if demand.model else 'resources.min_memory_gib'}"
        )
    if demand.gpus > largest:
        return (
            f"{start}; the largest that takes jobs in pool {pool.name} has {largest}: "
            f"start a larger one, or submit with resources.gpus of at most {largest}"
        )
    if demand.nodes > 1:
        large = [node for node, size in zip(pool.ready, sizes, strict=True) if size >= demand.gpus]
        reachable = sum(bool(node.address) for node in large)
        if reachable < demand.nodes:
            without = f", and {len(large) - reachable} more that no other can reach" if reachable < len(large) else ""
            return (
                f"{start}; pool {pool.name} has {reachable} such machine{'s' if reachable != 1 else ''}{without}: "
                f"start more, or submit with resources.nodes of at most {max(reachable, 1)}"
            )
    return None


def _has_room(pool: Pool, demand: Demand) -> bool:
    return any(sum(demand.suits(slot) and not slot.job_id for slot in node.slots) >= demand.gpus for node in pool.ready)


def _slots(demand: Demand, free: str = "") -> str:
    """The demand in words."""
    kind = f' whose model has "{demand.model}" in its name' if demand.model else ""
    kind += f" with {demand.memory_gib} GiB" if demand.memory_gib else ""
    if demand.nodes > 1:
        return f"{demand.gpus} {free}slot{'s' if demand.gpus > 1 else ''}{kind} on each of {demand.nodes} machines"
    return f"a {free}slot{kind}" if demand.gpus == 1 else f"{demand.gpus} {free}slots{kind} of one machine"


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
