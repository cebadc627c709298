"""What the ledger is told, and what it answers, beside jobs and events: its own few terms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple, TypeAlias

from podium.api.v1 import job_pb2, spec_pb2
from podium.jobs.job import Cause, Job, Node
from podium.jobs.spec import JobSpec, Priority
from podium.jobs.states import State

#: Whether a list is to have a job, which it gets as the contract has it.
Wanted: TypeAlias = Callable[[job_pb2.Job], bool]
JobPage: TypeAlias = tuple[list[Job], str]


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What creation writes; the spec is resolved already."""

    project: str
    spec: JobSpec | spec_pb2.JobSpec
    """As a message it keeps what this release does not know of it."""
    classes: tuple[str, ...]
    request_id: str = ""
    asked: str = ""
    """The digest of the spec as it was asked for, before defaults that depend on the data; empty: of `spec`."""
    created_by: str = ""
    """As `Job.created_by`."""
    trace_parent: str = ""
    """As `Job.trace_parent`."""
    id: str = ""
    """Of `new_job_id`, for who must know it before anybody can be interrupted; empty: the ledger makes one."""


class Submitted(NamedTuple):
    """What became of a NewJob."""

    id: str
    state: State
    message: bytes
    """The job's, without what it waits for."""
    new: bool
    """False: the same request_id created it before."""
    place: int | None
    """From 1, that in line; None: it is to be asked for."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The right to run one attempt. It travels through the queue as JSON, ids and numbers only."""

    job_id: str
    attempt: int
    fence: int


class Wish(Enum):
    """What the attempt is asked to do next: go on, or save its work and end, for one of three reasons."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    PAUSE = "pause"
    PREEMPT = "preempt"


class Drain(Enum):
    """What a machine is asked to do with the jobs that it has; it takes no new ones."""

    NO = "no"
    """Go on as usual."""
    FINISH = "finish"
    """Let them end."""
    REQUEUE = "requeue"
    """Have them save their work and go back to the queue."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What projects have used of the pools, by the leader's account."""

    time: datetime
    """Up to when it was counted."""
    seconds: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(pool, project) -> slot-seconds, old ones counting less."""


@dataclass(frozen=True, kw_only=True)
class Census:
    """How much there is of what, for whoever runs the pool."""

    nodes: Sequence[Node] = ()
    """As `JobStore.nodes` lists them."""
    queued: Mapping[tuple[str, Priority], int] = field(default_factory=dict)
    """(pool, class) -> jobs that wait there; what waits nowhere is left out."""
    attempts_ended: Mapping[Cause | None, int] = field(default_factory=dict)
    """Attempts that ever ended, by cause; None: done, cancelled or paused."""
    jobs_ended: Mapping[State, int] = field(default_factory=dict)
    """Jobs that ever ended, by the state that they ended in."""
    unarchived: int = 0
    """Ended jobs whose history the ledger itself still holds."""


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """Something that nobody sees any more, and whose bytes are to go."""

    job_id: str
    time: datetime
    """When it was deleted, aware."""
    checkpoint_id: str = ""
    """The checkpoint; empty: the whole job."""


@dataclass(frozen=True, kw_only=True)
class Bookmark:
    """How far a reader of notices is: it has settled all up to `after`, but those of `open`."""

    after: str
    open: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event as bytes of podium.api.v1.JobEvent without its sequence number, which stands beside it."""

    sequence: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class EventPage:
    """Events in order, and what is kept of the job's history."""

    events: tuple[StoredEvent, ...]
    oldest_sequence: int
    """The first sequence that is still kept; 1 as long as nothing was trimmed."""
    last_sequence: int


@dataclass(frozen=True, kw_only=True)
class StoredLines:
    """Lines of a job's log, written in one go."""

    offset: int
    """How many lines of the job's log come before them."""
    data: bytes
    """Bytes of podium.api.v1.JobEvent with attempt and log, whatever else."""


@dataclass(frozen=True, kw_only=True)
class LogPage:
    """Rows of a job's log in order, and what is kept of it."""

    rows: tuple[StoredLines, ...]
    """The first one may begin before the line that was asked for."""
    oldest_offset: int
    """Of the first line that is still kept."""
    end_offset: int
    """After the newest line."""
    last_sequence: int
    """Of the job's events, when the page was read."""


@dataclass(frozen=True, kw_only=True)
class Leases:
    """How long silence means nothing, in seconds."""

    attempt: float = 30.0
    """An attempt's lease; it renews at a third of this."""
    starting: float = 60.0
    """From dispatch to the first sign of the attempt."""
    node: float = 15.0
    """A machine's lease; it renews at a third of this."""
    grace: float = 120.0
    """How long an attempt may take to save its work once it was asked to stop; then it is killed."""
