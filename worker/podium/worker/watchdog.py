"""When an attempt's process is to be ended by force, and what is then said of it: the one place where patience ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from podium.jobs.job import Cause, Job
from podium.jobs.states import HOLDING_A_SLOT
from podium.jobs.store import Assignment
from podium.worker.pulse import Listener

#: How long an attempt that no longer holds its job has to leave, in seconds. It has nothing to save.
_LEAVING = 10.0
#: So many times longer than between two steps an attempt may be silent before its first one.
_FIRST_STEP = 3


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Why the process is killed."""

    cause: Cause
    outcome: str


class Watchdog:
    """Watches one attempt. Times are counted from when this machine saw what it counts from: clocks may differ.

    Args:
        assignment: the attempt.
        node: this machine.
        grace: how long an attempt has to save its work once it was asked to stop, in seconds.
        listener: for the attempt's pulse.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        assignment: Assignment,
        node: str,
        grace: float,
        listener: Listener,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._assignment = assignment
        self._node = node
        self._grace = grace
        self._listener = listener
        self._clock = clock
        self._stop_since: float | None = None
        self._gone_since: float | None = None
        self._stall_timeout: float | None = None

    @property
    def stopping(self) -> bool:
        """Whether the attempt was asked to stop, so that its end, however it comes, is what was wanted."""
        return self._stop_since is not None

    def ask(self) -> None:
        """The attempt has been asked to stop; its grace runs from the first time."""
        if self._stop_since is None:
            self._stop_since = self._clock()

    def see(self, job: Job) -> None:
        """Learns how the job stands."""
        ours = job.attempt == self._assignment.attempt and job.state in HOLDING_A_SLOT
        if not ours:
            if self._gone_since is None:
                self._gone_since = self._clock()
            return
        if job.stop_time is not None:
            self.ask()
        # Of several machines the first one hears how the attempt gets on.
        if job.attempts and job.attempts[-1].node == self._node:
            self._stall_timeout = job.spec.stall_timeout_seconds

    def verdict(self) -> Ending | None:
        """Why to kill the process now; None: let it be. To be asked every second or two, whatever `see` has seen."""
        self._listener.listen()
        now = self._clock()
        if self._gone_since is not None and now - self._gone_since > _LEAVING:
            return Ending(cause=Cause.PREEMPTED, outcome="it no longer holds its job and has not left")
        if self._stop_since is not None and now - self._stop_since > self._grace:
            outcome = f"asked to stop, it had not saved its work after {self._grace:g} seconds"
            return Ending(cause=Cause.PREEMPTED, outcome=outcome)
        if self._stall_timeout is None:
            return None
        patience = self._stall_timeout * (1 if self._listener.stepped else _FIRST_STEP)
        if self._listener.silence <= patience:
            return None
        before = "" if self._listener.stepped else ", before its first step"
        return Ending(cause=Cause.STALLED, outcome=f"stalled: no sign of progress for {patience:g} seconds{before}")
