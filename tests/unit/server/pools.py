"""Pools as the tests of plans need them: a few words for machines, waiting and running jobs."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from podium.jobs.job import Member, Node, NodeState, Slot
from podium.server.dispatcher._pool import Demand, Pool, Running, Waiting

LOW, NORMAL, HIGH, URGENT = 1, 2, 3, 4
NOW = 1000.0
GRACE = 100.0


def machine(name: str, held: Sequence[str], *, model: str = "CPU", gib: int = 0, address: str = "here") -> Node:
    """A machine with a slot for each of `held`, the job in it or nothing."""
    slots = [Slot(index=index, job_id=job_id, model=model, memory_bytes=gib << 30) for index, job_id in enumerate(held)]
    return Node(id=name, pool="default", state=NodeState.READY, slots=tuple(slots), address=address)


def machines(*held: Sequence[str]) -> list[Node]:
    """Machines named a, b, …"""
    return [machine(name, slots) for name, slots in zip("abcdefgh", held, strict=False)]


def line(*needs: int | Demand, rank: int = NORMAL, project: str = "default", first: int = 0) -> list[Waiting]:
    """Jobs j0, j1, … that need so many slots."""
    return [
        Waiting(
            id=f"j{number}",
            number=number,
            rank=rank,
            project=project,
            demand=need if isinstance(need, Demand) else Demand(need),
        )
        for number, need in enumerate(needs, start=first)
    ]


def running(job_id: str, *places: tuple[str, int], until: float = inf, **facts: object) -> Running:
    """A job that holds slots: ("a", 0) is the first one of machine a."""
    members: dict[str, list[int]] = {}
    for name, slot in places:
        members.setdefault(name, []).append(slot)
    found = tuple(Member(node=name, slots=tuple(slots)) for name, slots in members.items())
    return replace(Running(id=job_id, members=found, until=until, expected=until), **facts)  # type: ignore[arg-type]  # their names are Running's


def pool(nodes: Sequence[Node], waiting: Sequence[Waiting], *jobs: Running, **facts: object) -> Pool:
    """A pool at NOW. Whoever is in a slot and not among `jobs` runs without a bound."""
    known = {job.id: job for job in jobs}
    places: dict[str, list[tuple[str, int]]] = {}
    for node in nodes:
        for slot in node.slots:
            if slot.job_id:
                places.setdefault(slot.job_id, []).append((node.id, slot.index))
    for job_id, found in places.items():
        known.setdefault(job_id, running(job_id, *found))
    ordered = sorted(waiting, key=lambda job: (-job.rank, job.number))
    return Pool(now=NOW, grace=GRACE, nodes=nodes, waiting=ordered, running=known, **facts)  # type: ignore[arg-type]  # their names are Pool's


def holding(nodes: Sequence[Node], job_id: str) -> list[tuple[str, int]]:
    """Where a job is."""
    return [(node.id, slot.index) for node in nodes for slot in node.slots if slot.job_id == job_id]
