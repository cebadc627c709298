"""What the training loop needs of the world, and nothing of how the world is made. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from podium.jobs.events import Level
from podium.jobs.job import Progress


class StopReason(Enum):
    """Why an attempt ends before its job does."""

    CANCELLED = "cancelled"
    """The user asked for it."""
    DRAINED = "drained"
    """The machine is wanted back; another attempt goes on from the checkpoint."""
    PAUSED = "paused"
    """The user wants the job to wait; another attempt goes on when it is resumed."""
    PREEMPTED = "preempted"
    """Another job is to have the slot; another attempt goes on from the checkpoint."""
    DEADLINE = "deadline"
    """max_duration_seconds is over."""
    FENCED = "fenced"
    """A newer attempt holds the job: leave without a trace."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A committed checkpoint whose digests verify, as files on this machine."""

    step: int
    folder: Path


class JobContext(Protocol):
    """One attempt's line to its job. No call waits for the network, except where it says so."""

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records points at a step; none is ever dropped."""

    def progress(self, progress: Progress) -> None:
        """Says how far the attempt is; only the newest counts."""

    def log(self, text: str, level: Level = Level.INFO, *, rank: int = 0) -> None:
        """Writes a line to the job's log.

        Args:
            text: the line, without its end.
            level: how bad.
            rank: whose line it is, for the attempt that passes on what its ranks say; 0 speaks for all.
        """

    def should_stop(self) -> StopReason | None:
        """What to do at the next opportunity; None: go on. Cheap enough for every step."""

    def save(self, step: int, write: Callable[[Path], None], *, metrics: Mapping[str, float], best: bool) -> None:
        """Commits the files that `write` puts into an empty folder. The job sees it after all points reported so far.

        Raises:
            OSError: the storage refused.
        """

    def newest(self) -> Saved | None:
        """The newest checkpoint of this job that is whole; may wait for the network."""

    def best(self) -> Saved | None:
        """The checkpoint marked best, if it is whole; may wait for the network."""

    def checkpoint(self, checkpoint_id: str) -> Saved:
        """A checkpoint of any job; may wait for the network.

        Raises:
            NotFoundError: no such checkpoint.
            DataLossError: its bytes no longer have their digest.
        """

    def features(self, key: str) -> Path:
        """The folder, shared by all jobs and attempts, of the features with this key."""

    def scratch(self) -> Path:
        """The folder that this job's attempts share; it is the job's to empty."""


class Stopped(Exception):
    """Carries the order to stop out of whatever was under way; everything worth keeping has been saved."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def obey(context: JobContext) -> None:
    """Raises Stopped where the attempt is to end; for places that have nothing to save."""
    if (reason := context.should_stop()) is not None:
        raise Stopped(reason)
