"""Where a job stands, and the one table of legal moves (drawn in docs/job-lifecycle.md)."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class State(Enum):
    """Where a job stands. The values are the numbers of podium.api.v1.Job.State."""

    QUEUED = 1
    STARTING = 2
    RUNNING = 3
    RECOVERING = 4
    PAUSING = 5
    PAUSED = 6
    CANCELLING = 7
    CANCELLED = 8
    SUCCEEDED = 9
    FAILED = 10

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return not MOVES[self]


#: From a state to the states it may move to. Nothing leaves a terminal state. Every store obeys this table.
MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.QUEUED: frozenset({State.STARTING, State.PAUSED, State.CANCELLED}),
        State.STARTING: frozenset({State.RUNNING, State.RECOVERING, State.PAUSING, State.CANCELLING, State.FAILED}),
        State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.RECOVERING, State.PAUSING, State.CANCELLING}),
        State.RECOVERING: frozenset({State.QUEUED, State.FAILED}),
        State.PAUSING: frozenset({State.PAUSED, State.CANCELLING, State.FAILED, State.SUCCEEDED}),
        State.PAUSED: frozenset({State.QUEUED, State.CANCELLED}),
        State.CANCELLING: frozenset({State.CANCELLED, State.SUCCEEDED, State.FAILED}),
        State.CANCELLED: frozenset(),
        State.SUCCEEDED: frozenset(),
        State.FAILED: frozenset(),
    }
)

#: States in which an attempt holds a slot.
HOLDING_A_SLOT = frozenset({State.STARTING, State.RUNNING, State.PAUSING, State.CANCELLING})
