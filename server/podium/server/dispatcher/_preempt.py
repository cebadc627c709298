"""Whose work is interrupted so that another job can start, and whose slots become free anyway."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from podium.jobs.spec import Priority
from podium.server.dispatcher._machines import Kept, Machine, Machines, Share
from podium.server.dispatcher._pool import Demand, Pool, Running, Waiting

#: Searches a plan, since each looks at every machine. What is left over has its turn at the next look.
_MOST_SEARCHES = 20


@dataclass(frozen=True, kw_only=True)
class Preemption:
    """One job that is to give its slots to another."""

    victim: Running
    job_id: str
    """The one that gets them."""
    reason: str


class Preemptions:
    """Finds slots for jobs that cannot start on free ones.

    Slots of jobs that are stopping already come first, each for one job only, so that nobody is interrupted twice for
    the same one. Then those of running jobs of a lower class, and, for a job within its project's quota, those that
    another project of the same or a lower class has only borrowed.
    """

    def __init__(self, pool: Pool, machines: Machines) -> None:
        self._pool = pool
        self._machines = machines
        self._borrowed = _borrowed(pool)
        self._stopping = {job.id for job in pool.running.values() if job.stopping}
        self._weakest = min((job.rank for job in self._candidates()), default=Priority.URGENT.value)
        self._on: dict[int, list[Running]] = defaultdict(list)
        self._soon: dict[int, Machine] = {}
        self._hopeless: set[tuple[Demand, int, bool]] = set()
        self._searches = _MOST_SEARCHES
        for machine in machines:
            for slot in machine.node.slots:
                if slot.job_id in self._stopping:
                    self._free_soon(machine, slot.index)

    def _candidates(self) -> list[Running]:
        return [job for job in self._pool.running.values() if job.id not in self._stopping]

    def possible(self, job: Waiting) -> bool:
        """Whether anybody might have to give way to the job, or is about to go: cheap, and never wrongly no."""
        return bool(self._soon or self._borrowed) or self._weakest < job.rank

    def clear(self, job: Waiting, within: bool) -> tuple[Kept, list[Preemption]] | None:
        """Claims slots that are not free yet, with those who have to be asked for them; None: that would not do.

        Args:
            job: what is to start.
            within: whether it stays within its project's quota.
        """
        key = (job.demand, job.rank, within)
        if key in self._hopeless:
            return None
        costs = self._costs(job, within)
        if len(costs) < job.demand.nodes:
            self._hopeless.add(key)
            return None
        chosen = sorted(costs, key=lambda cost: cost.price)[: job.demand.nodes]
        victims = {victim.id: victim for cost in chosen for victim in cost.victims}
        for victim in victims.values():
            self._stop(victim)
        shares = [self._claim(cost.machine, job.demand) for cost in chosen]
        asked = [
            Preemption(victim=victim, job_id=job.id, reason=self._reason(job, victim)) for victim in victims.values()
        ]
        return Kept(shares=shares, until=self._pool.now + self._pool.grace), asked

    def _costs(self, job: Waiting, within: bool) -> "list[_Cost]":
        """What each machine would cost, if anybody's slots there will do; those that cost nothing alone, if enough."""
        demand = job.demand
        open_ones = [machine for machine in self._machines.fitting(demand) if not machine.kept]
        idle = [machine for machine in open_ones if self._short(machine, demand) <= 0]
        costs = [_Cost(machine=machine, victims=(), price=(0, 0, 0.0, machine.place)) for machine in idle]
        if len(costs) >= demand.nodes or self._searches == 0 or not self._may_ask(job, within):
            return costs
        self._searches -= 1
        self._find_holders()
        found = (self._cost(machine, job, within) for machine in open_ones if machine not in idle)
        return costs + [cost for cost in found if cost is not None]

    def _may_ask(self, job: Waiting, within: bool) -> bool:
        return self._weakest < job.rank or (within and bool(self._borrowed))

    def _cost(self, machine: Machine, job: Waiting, within: bool) -> "_Cost | None":
        """As few victims as will do: the lowest class first, then whoever started last, as that loses least."""
        short = self._short(machine, job.demand)
        offers = [
            (victim, count)
            for victim in self._on[machine.place]
            if self._gives_way(victim, job, within) and (count := self._offer(machine, victim, job.demand))
        ]
        offers.sort(key=lambda offer: (offer[0].rank, -offer[0].since, offer[0].id))
        taken: list[tuple[Running, int]] = []
        for offer in offers:
            if short <= 0:
                break
            taken.append(offer)
            short -= offer[1]
        if short > 0:
            return None
        for victim, count in reversed(taken[:-1]):
            if short + count <= 0:
                taken.remove((victim, count))
                short += count
        victims = tuple(victim for victim, _ in taken)
        lost = sum((self._pool.now - victim.since) * victim.slots for victim in victims)
        return _Cost(
            machine=machine,
            victims=victims,
            price=(max(victim.rank for victim in victims), len(victims), lost, machine.place),
        )

    def _gives_way(self, victim: Running, job: Waiting, within: bool) -> bool:
        if victim.id in self._stopping:
            return False
        return victim.rank < job.rank or (within and victim.rank <= job.rank and victim.id in self._borrowed)

    def _offer(self, machine: Machine, victim: Running, demand: Demand) -> int:
        """How many of the victim's slots on this machine would do."""
        slots = (slot for member in victim.members if member.node == machine.id for slot in member.slots)
        return sum(self._machines.suits(machine, demand, slot) for slot in slots)

    def _short(self, machine: Machine, demand: Demand) -> int:
        """How many slots are missing there, beside those that are free or will soon be."""
        soon = sum(self._machines.suits(machine, demand, slot) for slot in machine.soon)
        return demand.gpus - self._machines.room(machine, demand) - soon

    def _claim(self, machine: Machine, demand: Demand) -> Share:
        slots = self._machines.set_aside(machine, demand, inf)
        missing = demand.gpus - len(slots)
        claimed = [slot for slot in machine.soon if self._machines.suits(machine, demand, slot)][:missing]
        machine.soon = [slot for slot in machine.soon if slot not in claimed]
        machine.given.update(dict.fromkeys(claimed, inf))
        if not machine.soon:
            self._soon.pop(machine.place, None)
        return Share(machine=machine, slots=slots)

    def _stop(self, victim: Running) -> None:
        self._stopping.add(victim.id)
        self._borrowed.discard(victim.id)
        places = {(member.node, slot) for member in victim.members for slot in member.slots}
        for machine in self._machines:
            for slot in machine.node.slots if machine.id in {node for node, _ in places} else ():
                if (machine.id, slot.index) in places:
                    self._free_soon(machine, slot.index)

    def _free_soon(self, machine: Machine, slot: int) -> None:
        machine.soon.append(slot)
        self._soon[machine.place] = machine

    def _find_holders(self) -> None:
        """Who runs where; only once somebody is looked for."""
        if self._on:
            return
        places = {machine.id: machine.place for machine in self._machines}
        for job in self._candidates():
            for member in job.members:
                if member.node in places:
                    self._on[places[member.node]].append(job)

    def _reason(self, job: Waiting, victim: Running) -> str:
        if victim.rank < job.rank:
            return f"{job.id} of class {Priority(job.rank).name} needs its slots"
        return f"its slots were beyond the quota of project {victim.project}; {job.id} of {job.project} needs them"


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """What a machine would cost: the highest class that is interrupted, how many jobs, and how much of their time."""

    machine: Machine
    victims: Sequence[Running]
    price: tuple[int, int, float, int]


def _borrowed(pool: Pool) -> set[str]:
    """The running jobs that are beyond their project's quota: of each, those of the lowest class that started last."""
    by_project: Mapping[str, list[Running]] = defaultdict(list)
    for job in pool.running.values():
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
