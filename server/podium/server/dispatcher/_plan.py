"""Which waiting job gets which slots. Pure, so that what it promises can be tested without a ledger."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from podium.jobs.job import Member
from podium.server.dispatcher._machines import Kept, Machines, Share
from podium.server.dispatcher._order import Order
from podium.server.dispatcher._pool import Demand, Pool, Waiting
from podium.server.dispatcher._preempt import Preemption, Preemptions

#: So many jobs start at a look; more cannot be written in the time between two.
_MOST_STARTED = 128
#: So many jobs have machines kept for them at a time. Those behind them get theirs when these have started.
_MOST_HELD = 16


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Free slots for one job, on one machine or several."""

    job_id: str
    members: tuple[Member, ...]
    backfill: bool = False
    """Whether some of them are kept for a job before it, which they will be free for in time."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a job waits for that cannot start yet, though machines are kept for it."""

    machines: tuple[str, ...]
    until: float
    """When it starts at the latest, as far as running jobs have a bound; infinite where they have none."""
    stopping: bool
    """Whether jobs have been asked to make room for it, or stop anyway."""


@dataclass(kw_only=True)
class Plan:
    """What is to be done now."""

    placements: list[Placement] = field(default_factory=list)
    preemptions: list[Preemption] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)
    """By the job that waits."""


def plan(pool: Pool) -> Plan:
    """Gives free slots to waiting jobs in their order, all that a job needs or none.

    A job that does not fit has others interrupted for it, where it may, or machines kept for it that could hold it.
    Those behind it get nothing that is kept, unless they are sure to be gone in time. A job that no machines of the
    pool could hold is passed over and holds nobody up.
    """
    return _Planner(pool).plan()


class _Planner:
    """One plan in the making."""

    def __init__(self, pool: Pool) -> None:
        self._now = pool.now
        self._order = Order(pool)
        self._machines = Machines(pool)
        self._preemptions = Preemptions(pool, self._machines)
        self._backfill = _Backfill(self._machines)
        self._stuck: set[Demand] = set()
        self._plan = Plan()

    def plan(self) -> Plan:
        if self._nothing_left(self._order.highest):
            return self._plan
        for job in self._hopeful():
            self._serve(job)
            if self._nothing_left(job.rank) or len(self._plan.placements) >= _MOST_STARTED:
                break
        return self._plan

    def _hopeful(self) -> Iterator[Waiting]:
        """The line, without those that would get nothing: most of a long one."""
        now, stuck = self._now, self._stuck
        floor, latest = self._preemptions.floor, self._backfill.latest
        for job in self._order:
            if job.retry > now:
                continue
            if job.demand in stuck and job.rank <= floor and now + job.seconds > latest:
                continue
            yield job
            # It has been served.
            floor, latest = self._preemptions.floor, self._backfill.latest

    def _serve(self, job: Waiting) -> None:
        end = self._now + job.seconds
        stuck = job.demand in self._stuck
        if not stuck and (members := self._machines.fit(job.demand, end)):
            self._start(Placement(job_id=job.id, members=members), job)
        elif end <= self._backfill.latest and (member := self._backfill.fit(job.demand, end)):
            self._start(Placement(job_id=job.id, members=(member,), backfill=True), job)
        elif job.rank > self._preemptions.floor and (cleared := self._preemptions.clear(job, self._order.within(job))):
            self._plan.preemptions += cleared[1]
            self._hold(cleared[0], job, stopping=True)
        elif not stuck and (kept := self._keep(job)):
            self._hold(kept, job, stopping=False)
        else:
            self._stuck.add(job.demand)

    def _nothing_left(self, rank: int) -> bool:
        """Whether nobody of this class and of lower ones can get anything, so that the rest need not be looked at."""
        if self._preemptions.floor < rank:
            return False
        latest, order = self._backfill.latest, self._order
        if not self._machines.free and latest < self._now:
            return True
        # Only once somebody gets nothing is it found out what the whole line asks for, and for how long.
        return bool(self._stuck) and self._stuck >= order.demands and latest < self._now + order.shortest

    def _keep(self, job: Waiting) -> Kept | None:
        return self._machines.keep(job.demand) if len(self._plan.held) < _MOST_HELD else None

    def _start(self, placement: Placement, job: Waiting) -> None:
        self._plan.placements.append(placement)
        self._order.charge(job)

    def _hold(self, kept: Kept, job: Waiting, *, stopping: bool) -> None:
        machines = tuple(share.machine.id for share in kept.shares)
        self._plan.held[job.id] = Held(machines=machines, until=kept.until, stopping=stopping)
        self._backfill.add(kept)
        # What is kept counts as given, so that one project's large jobs do not keep everything.
        self._order.charge(job)


class _Backfill:
    """Slots that are kept, for jobs that are gone before they are needed."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._kept: list[tuple[float, Share]] = []
        self._in_vain: dict[Demand, float] = {}
        self.latest = -inf
        """The latest time at which any of them is needed. Where it is not known when, they are given to nobody."""

    def add(self, kept: Kept) -> None:
        """More slots are kept."""
        shares = [share for share in kept.shares if share.slots]
        if shares and kept.until < inf:
            self._kept += [(kept.until, share) for share in shares]
            self._kept.sort(key=lambda entry: (entry[0], entry[1].machine.place))
            self._in_vain.clear()
            self.latest = self._kept[-1][0]

    def fit(self, demand: Demand, end: float) -> Member | None:
        """Slots of one machine for a job that ends by `end`; those that are needed soonest first."""
        if demand.nodes > 1 or end >= self._in_vain.get(demand, inf):
            return None
        for until, share in self._kept:
            if end <= until and (slots := self._suitable(share, demand)):
                share.slots[:] = [slot for slot in share.slots if slot not in slots]
                return Member(node=share.machine.id, slots=tuple(slots))
        self._in_vain[demand] = end
        return None

    def _suitable(self, share: Share, demand: Demand) -> Sequence[int]:
        suited = self._machines.view(demand).suited[share.machine.place]
        slots = [slot for slot in share.slots if slot in suited][: demand.gpus]
        return slots if len(slots) == demand.gpus else ()
