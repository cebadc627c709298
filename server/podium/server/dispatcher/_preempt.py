"""Whose work is interrupted so that another job can start, and whose slots become free anyway."""

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import NamedTuple

from podium.jobs.spec import Priority
from podium.server.dispatcher._machines import Kept, Machine, Machines, Share, View
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


class _Cost(NamedTuple):
    """What a machine would cost. They sort by it: the highest class that is interrupted, how many jobs, their time."""

    highest: int
    interrupted: int
    lost: float
    place: int
    machine: Machine
    victims: Sequence[Running]


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
        self._found: dict[View, Sequence[Sequence[int]]] = {}
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
        chosen = heapq.nsmallest(job.demand.nodes, costs)
        victims = {victim.id: victim for cost in chosen for victim in cost.victims}
        for victim in victims.values():
            self._stop(victim)
        shares = [self._claim(cost.machine, job.demand) for cost in chosen]
        asked = [Preemption(victim=each, job_id=job.id, reason=_reason(job, each)) for each in victims.values()]
        return Kept(shares=shares, until=self._pool.now + self._pool.grace), asked

    def _idle(self, demand: Demand) -> list[_Cost]:
        """Machines that have enough once all who are stopping have gone."""
        view = self._machines.view(demand)
        machines = self._machines.fitting(demand) if demand.nodes > 1 else list(self._soon.values())
        enough = [machine for machine in machines if not machine.kept and _short(machine, demand, view) <= 0]
        return [_Cost(0, 0, 0.0, machine.place, machine, ()) for machine in enough]

    def _searched(self, job: Waiting, within: bool) -> list[_Cost]:
        """Every machine that has enough once others have been interrupted, too."""
        if not self._searches or not (self._weakest < job.rank or (within and self._borrowed)):
            return []
        self._searches -= 1
        view = self._machines.view(job.demand)
        givers = self._givers(view)
        costs = (
            self._cost(machine, _short(machine, job.demand, view), givers[machine.place], job, within)
            for machine in self._machines.fitting(job.demand)
            if not machine.kept
        )
        return [cost for cost in costs if cost]

    def _cost(self, machine: Machine, short: int, givers: Sequence[int], job: Waiting, within: bool) -> _Cost | None:
        """As few victims as will do: the lowest class first, then whoever started last, as that loses least."""
        if short <= 0:
            return _Cost(0, 0, 0.0, machine.place, machine, ())
        offers: dict[int, int] = {}
        for number in givers:
            if short <= 0 and number not in offers:
                break
            victim = self._weak[number]
            if victim.rank > job.rank:
                return None
            if victim.id in self._stopping or (
                victim.rank == job.rank and not (within and victim.id in self._borrowed)
            ):
                continue
            offers[number] = offers.get(number, 0) + 1
            short -= 1
        if short > 0:
            return None
        for number in list(offers)[-2::-1]:
            if short + offers[number] <= 0:
                short += offers.pop(number)
        victims = [self._weak[number] for number in offers]
        lost = sum([(self._pool.now - victim.since) * victim.slots for victim in victims])
        return _Cost(victims[-1].rank, len(victims), lost, machine.place, machine, victims)

    def _givers(self, view: View) -> Sequence[Sequence[int]]:
        """Of each machine and each slot of the kind whose job may have to give way: that job's place among all."""
        found = self._found.get(view)
        if found is None:
            turns, pairs = self._turns, zip(self._machines, view.suited, strict=True)
            found = self._found[view] = [
                sorted([turns[who] for who in machine.holders(suited) if who in turns]) for machine, suited in pairs
            ]
        return found

    def _claim(self, machine: Machine, demand: Demand) -> Share:
        slots = self._machines.set_aside(machine, demand, inf)
        suited = self._machines.view(demand).suited[machine.place]
        claimed = [slot for slot in machine.soon if slot in suited][: demand.gpus - len(slots)]
        machine.soon = [slot for slot in machine.soon if slot not in claimed]
        machine.give(claimed, inf)
        if not machine.soon:
            self._soon.pop(machine.place, None)
        return Share(machine=machine, slots=slots)

    def _stop(self, victim: Running) -> None:
        self._stopping.add(victim.id)
        self._borrowed.discard(victim.id)
        for machine in self._places[victim.id]:
            self._free_soon(machine, [slot.index for slot in machine.node.slots if slot.job_id == victim.id])

    def _free_soon(self, machine: Machine, slots: Sequence[int]) -> None:
        if slots:
            machine.soon += slots
            self._soon[machine.place] = machine

    @cached_property
    def _weak(self) -> Sequence[Running]:
        """Who may have to give way: those first that do so first, by class, then by their start, the last one first."""
        highest = self._pool.waiting[0].rank
        running = [job for job in self._pool.running.values() if job.rank < highest or job.id in self._borrowed]
        return sorted(running, key=lambda job: (job.rank, -job.since, job.id))

    @cached_property
    def _turns(self) -> Mapping[str, int]:
        """The place of each of them in that order."""
        return {job.id: number for number, job in enumerate(self._weak)}

    @cached_property
    def _places(self) -> Mapping[str, Sequence[Machine]]:
        """The machines that each of them is on."""
        found: dict[str, list[Machine]] = {job.id: [] for job in self._weak}
        for machine in self._machines:
            for job_id in found.keys() & {slot.job_id for slot in machine.node.slots}:
                found[job_id].append(machine)
        return found


def _short(machine: Machine, demand: Demand, view: View) -> int:
    """How many slots are missing there, beside those that are free or will soon be."""
    short = demand.gpus - view.rooms[machine.place]
    if machine.soon:
        suited = view.suited[machine.place]
        short -= sum(slot in suited for slot in machine.soon)
    return short


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
