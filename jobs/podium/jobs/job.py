"""The job as the ledger knows it, its attempts, checkpoints and the machines that run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from podium.jobs.spec import JobSpec
from podium.jobs.states import State


class Cause(Enum):
    """Why a job failed, from a closed list. The values are the numbers of podium.api.v1.JobError.Cause."""

    USER_CONFIG = 1
    DATA = 2
    OOM_DEVICE = 3
    OOM_HOST = 4
    NON_FINITE = 5
    STORAGE = 6
    NODE_LOST = 7
    PREEMPTED = 8
    STALLED = 9
    DEADLINE = 10
    INTERNAL = 11


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job failed."""

    cause: Cause
    message: str
    remedy: str = ""
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is; `fraction` is within the phase, from 0 to 1."""

    phase: str
    step: int = 0
    total_steps: int = 0
    fraction: float = 0.0
    images_per_second: float = 0.0
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class QueueInfo:
    """What a queued job waits for."""

    position: int
    wait_reason: str = ""
    estimated_start_time: datetime | None = None
    """None: it cannot be told."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A machine's part in an attempt on several."""

    node: str
    slots: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at running a job, on one machine or several."""

    number: int
    node: str
    slot: int
    """The first of its slots, whose supervisor runs it."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    outcome: str = ""
    resumed_from_step: int = 0
    slots: tuple[int, ...] = ()
    """Every slot that it holds on `node`, `slot` first; left out, as in old records: `slot` alone."""
    cause: Cause | None = None
    """Why it ended; None while it runs, and where the job was done, cancelled or paused."""
    checkpoint_id: str = ""
    """The newest checkpoint that it committed."""
    checkpoint_step: int = 0
    others: tuple[Member, ...] = ()
    """The other machines; `node` has rank 0."""

    def __post_init__(self) -> None:
        if not self.slots:
            object.__setattr__(self, "slots", (self.slot,))

    @property
    def members(self) -> tuple[Member, ...]:
        """Every machine of it, in the order of their ranks."""
        return (Member(node=self.node, slots=self.slots), *self.others)

    @property
    def progressed(self) -> bool:
        """Whether it committed anything beyond where it began."""
        return self.checkpoint_step > self.resumed_from_step


def slots_in_words(slots: Sequence[int]) -> str:
    """Slots as people name them: "slot 0", "slots 0, 1"."""
    return f"slot{'s' if len(slots) > 1 else ''} {', '.join(map(str, slots))}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job: its spec and everything that became of it."""

    id: str
    project: str
    spec: JobSpec
    state: State
    terminal: bool = False
    state_reason: str = ""
    sequence: int = 0
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    error: JobError | None = None
    progress: Progress | None = None
    queue: QueueInfo | None = None
    classes: tuple[str, ...] = ()
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    stop_time: datetime | None = None
    """When its attempt was asked to stop; None while it may go on."""
    retry_time: datetime | None = None
    """Before this time it is not started again."""
    created_by: str = ""
    """Who submitted it; empty where the server asks for no tokens."""
    trace_parent: str = ""
    """The W3C traceparent of the call that created it; empty: it is not traced."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """One file of a checkpoint."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One committed checkpoint."""

    id: str
    job_id: str
    attempt: int
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: bool = False
    files: tuple[CheckpointFile, ...] = ()
    create_time: datetime | None = None


class NodeState(Enum):
    """Whether a machine takes jobs. The values are the numbers of podium.api.v1.Node.State."""

    READY = 1
    DRAINING = 2
    LOST = 3
    EXCLUDED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place for one device's work on a machine. A job holds as many of each machine as its resources.gpus says."""

    index: int
    device: str = "cpu"
    model: str = "CPU"
    memory_bytes: int = 0
    job_id: str = ""
    trouble: str = ""
    """Why it takes no jobs, in words; empty: it does."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of the pool."""

    id: str
    pool: str
    state: NodeState
    slots: tuple[Slot, ...]
    heartbeat_time: datetime | None = None
    version: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what else matters there: "python", "torch", "driver"."""
    address: str = ""
    """Where other machines reach it; empty: it takes no jobs of several machines."""
    reason: str = ""
    """Why it takes no jobs, in words; empty: it does."""
