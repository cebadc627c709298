"""Whose work is interrupted so that another job can start, and whose slots become free anyway."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from podium.jobs.spec import Priority
from podium.server.dispatcher._machines import Kept, Machine, Machines, Share
from podium.server.dispatcher._pool import Demand, Pool, Running, Waiting

#: Searches a plan, since each looks at every machine. Whoever is left over has its turn at the next look.
_MOST_SEARCHES = 8


@dataclass(frozen=True, kw_only=True)
class Preemption:
    """One job that is to give its slots to another."""

    victim: Running
    job_id: str
    """The one that gets them."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """A job in slots of one machine."""

    job: Running
    slots: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """What a machine would cost: the highest class that is interrupted, how many jobs, and how much of their time."""

    machine: Machine
    victims: Sequence[Running]
    price: tuple[int, int, float, int]


class Preemptions:
    """Finds slots for jobs that cannot start on free ones.

    Slots of jobs that are stopping already come first, each for one job only, so that nobody is interrupted twice for
    the same one. Then those of running jobs of a lower class, and, for a job within its project's quota, those that
    another project of the same or a lower class has only borrowed.
    """

    def __init__(self, pool: Pool, machines: Machines) -> None:
        self._pool = pool
        self._machines = machines
        self._stopping: set[str] = set()
        self._weakest = inf
        for running in pool.running.values():
            if running.stopping:
                self._stopping.add(running.id)
            elif running.rank < self._weakest:
                self._weakest = running.rank
        self._borrowed = _borrowed(pool)
        self._soon: dict[int, Machine] = {}
        self._hopeless: set[tuple[Demand, int, bool]] = set()
        self._searches = _MOST_SEARCHES
        for machine in machines if self._stopping else ():
            self._free_soon(machine, [slot.index for slot in machine.node.slots if slot.job_id in self._stopping])

    @property
    def floor(self) -> float:
        """Nobody gives way to jobs of this class and of lower ones, nor is anybody about to go."""
        if self._soon or (self._searches and self._borrowed):
            return -inf
        return self._weakest if self._searches else inf

    def clear(self, job: Waiting, within: bool) -> tuple[Kept, list[Preemption]] | None:
        """Claims slots that are not free yet, with those who have to be asked for them; None: that would not do.

        Args:
            job: what is to start.
            within: whether it stays within its project's quota.
        """
        key = (job.demand, job.rank, within)
        if key in self._hopeless:
            return None
        costs = self._idle(job.demand)
        if len(costs) < job.demand.nodes:
            costs = self._searched(job, within)
        if len(costs) < job.demand.nodes:
            self._hopeless.add(key)
            return None
        chosen = sorted(costs, key=lambda cost: cost.price)[: job.demand.nodes]
        victims = {victim.id: victim for cost in chosen for victim in cost.victims}
        for victim in victims.values():
            self._stop(victim)
        shares = [self._claim(cost.machine, job.demand) for cost in chosen]
        asked = [Preemption(victim=each, job_id=job.id, reason=_reason(job, each)) for each in victims.values()]
        return Kept(shares=shares, until=self._pool.now + self._pool.grace), asked

    def _idle(self, demand: Demand) -> list[_Cost]:
        """Machines that have enough once all who are stopping have gone."""
        machines = self._machines.fitting(demand) if demand.nodes > 1 else list(self._soon.values())
        enough = [machine for machine in machines if not machine.kept and self._short(machine, demand) <= 0]
        return [_Cost(machine=machine, victims=(), price=(0, 0, 0.0, machine.place)) for machine in enough]

    def _searched(self, job: Waiting, within: bool) -> list[_Cost]:
        """Every machine that has enough once others have been interrupted, too."""
        if not self._searches or not (self._weakest < job.rank or (within and self._borrowed)):
            return []
        self._searches -= 1
        open_ones = (machine for machine in self._machines.fitting(job.demand) if not machine.kept)
        found = (self._cost(machine, job, within) for machine in open_ones)
        return [cost for cost in found if cost is not None]

    def _cost(self, machine: Machine, job: Waiting, within: bool) -> _Cost | None:
        """As few victims as will do: the lowest class first, then whoever started last, as that loses least."""
        short = self._short(machine, job.demand)
        suited = self._machines.suited(machine, job.demand)
        taken: list[tuple[Running, int]] = []
        for holder in self._holders[machine.place]:
            if short <= 0:
                break
            if self._gives_way(holder.job, job, within):
                offer = sum(slot in suited for slot in holder.slots)
                taken.append((holder.job, offer))
                short -= offer
        if short > 0:
            return None
        needed = [(victim, offer) for victim, offer in taken if offer]
        for victim, offer in reversed(needed[:-1]):
            if short + offer <= 0:
                needed.remove((victim, offer))
                short += offer
        victims = tuple(victim for victim, _ in needed)
        lost = sum((self._pool.now - victim.since) * victim.slots for victim in victims)
        highest = max((victim.rank for victim in victims), default=0)
        return _Cost(machine=machine, victims=victims, price=(highest, len(victims), lost, machine.place))

    def _gives_way(self, victim: Running, job: Waiting, within: bool) -> bool:
        if victim.id in self._stopping:
            return False
        return victim.rank < job.rank or (within and victim.rank == job.rank and victim.id in self._borrowed)

    def _short(self, machine: Machine, demand: Demand) -> int:
        """How many slots are missing there, beside those that are free or will soon be."""
        short = demand.gpus - self._machines.room(machine, demand)
        if machine.soon:
            suited = self._machines.suited(machine, demand)
            short -= sum(slot in suited for slot in machine.soon)
        return short

    def _claim(self, machine: Machine, demand: Demand) -> Share:
        slots = self._machines.set_aside(machine, demand, inf)
        suited = self._machines.suited(machine, demand)
        claimed = [slot for slot in machine.soon if slot in suited][: demand.gpus - len(slots)]
        machine.soon = [slot for slot in machine.soon if slot not in claimed]
        machine.give(claimed, inf)
        if not machine.soon:
            self._soon.pop(machine.place, None)
        return Share(machine=machine, slots=slots)

    def _stop(self, victim: Running) -> None:
        self._stopping.add(victim.id)
        self._borrowed.discard(victim.id)
        for place in self._places[victim.id]:
            holder = next(holder for holder in self._holders[place] if holder.job.id == victim.id)
            self._free_soon(self._by_place[place], holder.slots)

    def _free_soon(self, machine: Machine, slots: Sequence[int]) -> None:
        if slots:
            machine.soon += slots
            self._soon[machine.place] = machine

    @cached_property
    def _by_place(self) -> Sequence[Machine]:
        return list(self._machines)

    @cached_property
    def _holders(self) -> Sequence[Sequence[_Holder]]:
        """Of each machine the jobs on it, in the order in which they give way."""
        found: list[list[_Holder]] = []
        for machine in self._machines:
            slots: dict[str, list[int]] = defaultdict(list)
            for slot in machine.node.slots:
                if slot.job_id in self._pool.running:
                    slots[slot.job_id].append(slot.index)
            holders = [_Holder(job=self._pool.running[who], slots=tuple(held)) for who, held in slots.items()]
            holders.sort(key=lambda holder: (holder.job.rank, -holder.job.since, holder.job.id))
            found.append(holders)
        return found

    @cached_property
    def _places(self) -> Mapping[str, Sequence[int]]:
        """Of each job the machines that it is on."""
        found: dict[str, list[int]] = defaultdict(list)
        for place, holders in enumerate(self._holders):
            for holder in holders:
                found[holder.job.id].append(place)
        return found


def _reason(job: Waiting, victim: Running) -> str:
    # Whoever sees it may know no other project: not even that there is one of that name.
    if victim.rank < job.rank:
        return f"{job.id} of class {Priority(job.rank).name} needs its slots"
    return f"its slots were beyond the quota of project {victim.project}; {job.id} needs them"


def _borrowed(pool: Pool) -> set[str]:
    """The running jobs that are beyond their project's quota: of each, those of the lowest class that started last."""
    by_project: Mapping[str, list[Running]] = defaultdict(list)
    for job in pool.running.values() if pool.sharing.quotas else ():
        if job.project in pool.sharing.quotas and not job.stopping:
            by_project[job.project].append(job)
    borrowed: set[str] = set()
    for project, jobs in by_project.items():
        held = 0
        for job in sorted(jobs, key=lambda job: (-job.rank, job.since, job.id)):
            held += job.slots
            if held > pool.sharing.quotas[project]:
                borrowed.add(job.id)
    return borrowed
