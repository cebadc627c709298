"""The machines of a pool while a plan is made: what is free, what will be, and what is kept for whom."""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from podium.jobs.job import Member, Node
from podium.server.dispatcher._pool import Demand, Pool, Running

#: Who holds a slot, as long as no more than the name is known.
_UNKNOWN = Running(id="")


class Machine:
    """One machine. Slots are named by their index."""

    def __init__(self, node: Node, place: int) -> None:
        self.id = node.id
        self.node = node
        self.place = place
        self.reachable = bool(node.address)
        self.alike = True
        """Whether all slots are of one kind, and take jobs."""
        every, free, holders = [], [], []
        model, memory = (node.slots[0].model, node.slots[0].memory_bytes) if node.slots else ("", 0)
        for slot in node.slots:
            index = slot.index
            every.append(index)
            if slot.trouble or slot.model != model or slot.memory_bytes != memory:
                self.alike = False
            if slot.job_id:
                holders.append(slot.job_id)
            elif not slot.trouble:
                free.append(index)
        self.every = tuple(every)
        """Its slots."""
        self.free = free
        self.busy = len(holders)
        self._holders = holders
        self.soon: list[int] = []
        """Slots whose jobs have been asked to stop, and that nobody has claimed yet."""
        self.kept = False
        """Whether a job waits for more of its slots than are free, and nobody behind that one may."""
        self._given: dict[int, float] = {}
        self._ends: dict[tuple[int, ...], list[float]] = {}

    def give(self, slots: Collection[int], until: float) -> None:
        """Takes slots away; they are free again by `until`."""
        free = [slot for slot in self.free if slot not in slots]
        self.busy += len(self.free) - len(free)
        self.free = free
        self._given.update(dict.fromkeys(slots, until))
        self._ends.clear()

    def holders(self, slots: tuple[int, ...]) -> Sequence[str]:
        """The jobs in these slots; one that has several of them, several times."""
        if slots == self.every:
            return self._holders
        return [slot.job_id for slot in self.node.slots if slot.job_id and slot.index in slots]

    def ends(self, suited: tuple[int, ...], running: Mapping[str, Running]) -> list[float]:
        """When each of these slots that is not free will be at the latest, the first one first."""
        if (found := self._ends.get(suited)) is None:
            given = self._given
            left = tuple([slot for slot in suited if slot not in given]) if given else suited
            found = [running.get(job_id, _UNKNOWN).until for job_id in self.holders(left)]
            if given:
                found += [end for slot, end in given.items() if slot in suited]
            found.sort()
            self._ends[suited] = found
        return found


@dataclass(frozen=True, kw_only=True)
class Share:
    """Free slots of one machine that are kept for a job."""

    machine: Machine
    slots: list[int]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept for a job that cannot start yet."""

    shares: Sequence[Share]
    until: float
    """When it can start at the latest, provided that nobody gets what is kept; infinite where that is not known."""


class Machines:
    """The machines that take jobs."""

    def __init__(self, pool: Pool) -> None:
        self._now, self._running, self._line = pool.now, pool.running, pool.waiting
        nodes = sorted(pool.ready, key=lambda node: node.id)
        self._all = [Machine(node, place) for place, node in enumerate(nodes)]
        self._views: dict[tuple[str, int], View] = {}
        self._waits: dict[Demand, list[tuple[float, int, int]]] = {}
        self.free = sum(len(machine.free) for machine in self._all)
        """Slots that anybody may have."""

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._all)

    def fit(self, demand: Demand, until: float) -> tuple[Member, ...] | None:
        """Takes free slots for a job; None: there are none for it.

        A job of one slot gets it where the fewest are busy, as jobs on one machine share its processor, memory and
        disk. A job of several goes where it leaves the fewest free, so that room for the next large one stays.

        Args:
            demand: what it needs.
            until: when it ends at the latest.
        """
        if self.free < demand.slots:
            return None
        chosen = self.view(demand).choose(demand)
        return (
            tuple(Member(node=machine.id, slots=tuple(self.set_aside(machine, demand, until))) for machine in chosen)
            or None
        )

    def set_aside(self, machine: Machine, demand: Demand, until: float) -> list[int]:
        """Takes as many free slots as the demand has of one machine, or as many as there are."""
        suited = self.view(demand).suited[machine.place]
        slots = [slot for slot in machine.free if slot in suited][: demand.gpus]
        self.free -= len(slots)
        machine.give(slots, until)
        for view in self._views.values():
            view.moved(machine)
        return slots

    def view(self, demand: Demand) -> "View":
        """The machines as jobs see them that need slots of that kind."""
        kind = (demand.model, demand.memory_gib)
        view = self._views.get(kind)
        if view is None:
            view = self._views[kind] = View(self._all, demand)
        return view

    def fitting(self, demand: Demand) -> Iterable[Machine]:
        """The machines that could hold the job's part, were they empty."""
        gpus, several = demand.gpus, demand.nodes > 1
        pairs = zip(self._all, self.view(demand).suited, strict=True)
        return (machine for machine, suited in pairs if len(suited) >= gpus and (machine.reachable or not several))

    def keep(self, demand: Demand) -> Kept | None:
        """Keeps machines for a job that no free slots will do for; None: they are too small, or kept for others.

        Those first that have room first, by the bounds of the jobs on them; then those with the most free slots.
        What is free of them only grows from look to look, so the job starts, however many small ones come after it.
        """
        found = self._soonest(demand)
        if len(found) < demand.nodes:
            return None
        until = max(end for end, _ in found)
        shares = [Share(machine=machine, slots=self.set_aside(machine, demand, inf)) for _, machine in found]
        for share in shares:
            share.machine.kept = share.machine.kept or len(share.slots) < demand.gpus
        return Kept(shares=shares, until=until)

    def _soonest(self, demand: Demand) -> list[tuple[float, Machine]]:
        """As many machines as the job needs, those that are kept already left out; fewer: there are no more."""
        waits = self._waits.get(demand)
        if waits is None:
            waits = self._waits[demand] = self._waited(self.fitting(demand), demand)
            heapq.heapify(waits)
        found: list[tuple[float, Machine]] = []
        while waits and len(found) < demand.nodes:
            machine = self._all[waits[0][2]]
            # What a machine offers only shrinks while a plan is made, so an old entry is at worst too good.
            if machine.kept:
                heapq.heappop(waits)
            elif (wait := self._waited([machine], demand)[0]) != waits[0]:
                heapq.heapreplace(waits, wait)
            else:
                found.append((wait[0], machine))
                heapq.heappop(waits)
        return found

    def _waited(self, machines: Iterable[Machine], demand: Demand) -> list[tuple[float, int, int]]:
        """Of each: when it has room for the job's part at the latest; how many slots are free; the machine."""
        view, gpus, now = self.view(demand), demand.gpus, self._now
        bounded, running = self._bounded, self._running
        waits: list[tuple[float, int, int]] = []
        for machine in machines:
            place = machine.place
            room = view.rooms[place]
            if room >= gpus:
                until = now
            elif bounded:
                until = machine.ends(view.suited[place], running)[gpus - room - 1]
            else:
                until = inf
            waits.append((until if until > now else now, -room, place))
        return waits

    @cached_property
    def _bounded(self) -> bool:
        """Whether anything of what runs, or of what may get slots now, has a bound."""
        return any(job.until < inf for job in self._running.values()) or any(job.seconds < inf for job in self._line)


class View:
    """The machines as jobs of one kind see them: only slots of that model and memory."""

    def __init__(self, machines: Sequence[Machine], kind: Demand) -> None:
        self._machines = machines
        self.suited = [_suited(machine, kind) for machine in machines]
        """Of each machine the slots of the kind, held or free."""
        self.rooms = [self._room(machine) for machine in machines]
        """Of each machine how many of them are free."""
        self._by_busy = [(machine.busy, place) for place, machine in enumerate(machines) if self.rooms[place]]
        heapq.heapify(self._by_busy)
        self._by_room: dict[int, list[int]] = defaultdict(list)
        for place, room in enumerate(self.rooms):
            self._by_room[room].append(place)

    def _room(self, machine: Machine) -> int:
        suited = self.suited[machine.place]
        if machine.alike:
            return len(machine.free) if suited else 0
        return sum(slot in suited for slot in machine.free)

    def moved(self, machine: Machine) -> None:
        """Some of its slots were taken."""
        room = self.rooms[machine.place] = self._room(machine)
        heapq.heappush(self._by_room[room], machine.place)

    def choose(self, demand: Demand) -> Sequence[Machine]:
        """Machines with room for the job; none: there are not enough."""
        if demand.nodes > 1:
            roomy = [
                (room, place)
                for place, room in enumerate(self.rooms)
                if room >= demand.gpus and self._machines[place].reachable
            ]
            chosen = heapq.nsmallest(demand.nodes, roomy)
            return [self._machines[place] for _, place in chosen] if len(chosen) == demand.nodes else ()
        machine = self._emptiest() if demand.gpus == 1 else self._tightest(demand.gpus)
        return (machine,) if machine else ()

    # What is in the heaps may be old: it is looked at again when it comes to the top. The place comes last in each, so
    # that the choice is the same at every look as long as nothing has changed.

    def _emptiest(self) -> Machine | None:
        while self._by_busy:
            busy, place = self._by_busy[0]
            machine = self._machines[place]
            if not self.rooms[place]:
                heapq.heappop(self._by_busy)
            elif busy != machine.busy:
                heapq.heapreplace(self._by_busy, (machine.busy, place))
            else:
                return machine
        return None

    def _tightest(self, gpus: int) -> Machine | None:
        for room in sorted(self._by_room):
            places = self._by_room[room] if room >= gpus else []
            while places:
                if self.rooms[places[0]] == room:
                    return self._machines[places[0]]
                heapq.heappop(places)
        return None


def _suited(machine: Machine, kind: Demand) -> tuple[int, ...]:
    slots = machine.node.slots
    if machine.alike:
        return machine.every if slots and kind.suits(slots[0]) else ()
    return tuple([slot.index for slot in slots if kind.suits(slot)])
