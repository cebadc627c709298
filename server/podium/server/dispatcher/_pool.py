"""What is known of a pool at one moment: its machines, who holds what, who waits, and what projects have used."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import NamedTuple

from podium.jobs.job import Attempt, Job, Member, Node, NodeState, Progress, Slot
from podium.jobs.spec import Priority, Resources
from podium.jobs.store import Assignment, Leases
from podium.server.dispatcher._shares import Sharing


class Demand(NamedTuple):
    """What a job needs: `gpus` slots on each of `nodes` machines, all of one kind."""

    gpus: int = 1
    nodes: int = 1
    model: str = ""
    """In lower case; a slot's model contains it."""
    memory_gib: int = 0

    @property
    def slots(self) -> int:
        """In all."""
        return self.gpus * self.nodes

    def suits(self, slot: Slot) -> bool:
        """Whether the slot is of the kind and takes jobs; somebody may hold it."""
        return not slot.trouble and self.model in slot.model.lower() and slot.memory_bytes >= self.memory_gib << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job in line, as far as a plan needs it."""

    id: str
    project: str = "default"
    rank: int = Priority.NORMAL.value
    """The class, as a number: higher ones go first."""
    number: int = 0
    """Its place in line, by class and creation; another one after its priority has changed."""
    demand: Demand = Demand()  # noqa: RUF009  # a tuple
    seconds: float = inf
    """From its start, so long at most does it hold its slots."""
    retry: float = 0.0
    """Before this time it is not started."""
    since: float = 0.0
    """When it began to wait: when it was created, or its last attempt ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job that holds slots. Times are in seconds since 1970."""

    id: str
    project: str = "default"
    rank: int = Priority.NORMAL.value
    members: tuple[Member, ...] = ()
    assignment: Assignment | None = None
    since: float = 0.0
    until: float = inf
    """When its slots are free at the latest."""
    expected: float = inf
    """When they are free as it looks now."""
    stopping: bool = False
    progress: Progress | None = None
    slots: int = field(init=False)
    """In all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", sum(len(member.slots) for member in self.members))


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One pool at one moment."""

    name: str = "default"
    now: float = 0.0
    grace: float = Leases.grace
    nodes: Sequence[Node] = ()
    waiting: Sequence[Waiting] = ()
    """By class, then by creation."""
    running: Mapping[str, Running] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    """Project -> slot-seconds, old ones counting less."""
    sharing: Sharing = Sharing()  # noqa: RUF009  # frozen

    @cached_property
    def ready(self) -> Sequence[Node]:
        """The machines that take jobs."""
        return [node for node in self.nodes if node.state is NodeState.READY]

    @cached_property
    def held(self) -> Mapping[str, int]:
        """Project -> the slots that its jobs hold."""
        held: dict[str, int] = defaultdict(int)
        for job in self.running.values():
            held[job.project] += job.slots
        return dict(held)


def demand_of(wanted: Resources) -> Demand:
    """What a job needs."""
    return Demand(wanted.gpus, wanted.nodes, wanted.gpu_model.lower(), wanted.min_memory_gib)


def waiting(job: Job, number: int, leases: Leases) -> Waiting:
    """A job in line, from the ledger's."""
    began = job.attempts[-1].end_time if job.attempts else job.create_time
    return Waiting(
        id=job.id,
        project=job.project,
        rank=job.spec.priority.value,
        number=number,
        demand=demand_of(job.spec.resources),
        seconds=_bound(job, leases),
        retry=job.retry_time.timestamp() if job.retry_time else 0.0,
        since=began.timestamp() if began else 0.0,
    )


def running(job: Job, assignment: Assignment, leases: Leases, before: Running | None, now: float) -> Running:
    """A job that holds slots, from the ledger's.

    Args:
        job: as the ledger knows it.
        assignment: its present attempt.
        leases: how long it may take to begin and to stop.
        before: what was known of it; progress that is not new keeps the end that was expected of it.
        now: the time.
    """
    attempt = job.attempts[-1]
    since = attempt.start_time.timestamp() if attempt.start_time else now
    until = since + _bound(job, leases)
    if job.stop_time is not None:
        until = min(until, job.stop_time.timestamp() + leases.grace)
    expected = inf
    if before is not None and before.progress == job.progress:
        expected = before.expected
    elif job.progress is not None and job.progress.eta_seconds is not None:
        expected = now + job.progress.eta_seconds
    return Running(
        id=job.id,
        project=job.project,
        rank=job.spec.priority.value,
        members=attempt.members,
        assignment=assignment,
        since=since,
        until=until,
        expected=min(expected, until),
        stopping=job.stop_time is not None,
        progress=job.progress,
    )


def _bound(job: Job, leases: Leases) -> float:
    """So many seconds at most does its next or present attempt hold its slots: until the deadline, and then to save."""
    if not job.spec.max_duration_seconds:
        return inf
    left = job.spec.max_duration_seconds - sum(map(_seconds, job.attempts))
    return max(left, 0.0) + leases.starting + leases.grace


def _seconds(attempt: Attempt) -> float:
    if attempt.start_time is None or attempt.end_time is None:
        return 0.0
    return (attempt.end_time - attempt.start_time).total_seconds()
