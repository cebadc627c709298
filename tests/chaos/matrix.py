"""The kill matrix: who is hit, with what, while the job is where."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


class Target(Enum):
    """Who is hit. The values are the words of the table."""

    SERVER = "server"
    """One that does not lead, and that a watcher reads from."""
    LEADER = "leader"
    AGENT = "node agent"
    SLOT = "RQ worker"
    HORSE = "attempt"
    RANK = "rank"
    REDIS = "Redis"


class Blow(Enum):
    """With what."""

    TERM = "SIGTERM"
    KILL = "SIGKILL"
    STOP = "SIGSTOP 10 s"


class Phase(Enum):
    """Where the job is."""

    QUEUED = "queued"
    """In line: other jobs hold all slots. What belongs to an attempt is the first of these jobs'."""
    STARTING = "starting"
    """Handed to the process of its attempt, which has not begun; a rank: started, without a step."""
    STEP = "mid-step"
    SAVE = "mid-save"
    """A checkpoint is half written."""
    COMMIT = "mid-commit"
    """A checkpoint is on the disk, and the ledger has not answered that it lists it."""
    FINISHING = "finishing"
    """All is done, and the ledger has not answered that it knows."""
    CANCELLING = "cancelling"
    """The checkpoint of a cancelled job is half written."""
    PAUSING = "pausing"
    """The checkpoint of a paused job is half written; it is resumed once it is PAUSED."""


#: What makes no sense, and why.
SENSELESS = {(Target.RANK, Phase.QUEUED): "a job in line has no ranks, and those of others have their own rows"}


@dataclass(frozen=True)
class Case:
    """One combination."""

    target: Target
    blow: Blow
    phase: Phase

    def __str__(self) -> str:
        return f"{self.target.value} / {self.blow.value} / {self.phase.value}"


def cases() -> Iterator[Case]:
    """All of the matrix that makes sense."""
    for target in Target:
        for phase in Phase:
            if (target, phase) not in SENSELESS:
                yield from (Case(target, blow, phase) for blow in Blow)


def some(count: int, seed: int) -> Sequence[Case]:
    """A random few that take no long: nothing is stopped for 10 seconds, and no ranks have to import torch."""
    short = [case for case in cases() if case.blow is not Blow.STOP and case.target is not Target.RANK]
    return random.Random(seed).sample(short, count)
