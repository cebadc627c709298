"""The process of one attempt, from its order to its burial, as the supervisor of its slot sees it."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence

import psutil

from podium.jobs.errors import PodiumError, StaleFenceError
from podium.jobs.events import LogLine
from podium.jobs.job import Cause, Job
from podium.jobs.store import Assignment, JobStore
from podium.worker.memory import MemoryWatch
from podium.worker.patience import insist
from podium.worker.processes import death_of, describe_exit, kill, wait_status
from podium.worker.pulse import Listener
from podium.worker.roll_call import call_roll
from podium.worker.spare import Spare
from podium.worker.watchdog import Ending, Watchdog

_LOG = logging.getLogger(__name__)
#: How often the process is looked after, in seconds.
_TICK = 1.0


class AttemptProcess:
    """Watches one attempt's process, which has its order.

    Args:
        process: the process.
        assignment: what it runs.
        store: the ledger.
        node: this machine.
        grace: how long an attempt has to save its work once it was asked to stop, in seconds.
    """

    def __init__(self, process: Spare, assignment: Assignment, store: JobStore, *, node: str, grace: float) -> None:
        self._process = process
        self._assignment = assignment
        self._store = store
        self._node = node
        self._memory = MemoryWatch()
        self._watchdog = Watchdog(assignment, node, grace, Listener(process.folder))
        self._job: Job | None = None
        self._over = False

    def see(self, job: Job) -> None:
        """Learns how the job stands; what was learned last counts while the ledger is away."""
        self._watchdog.see(job)
        if job.attempt == self._assignment.attempt:
            self._job = job

    def ask(self) -> None:
        """Asks the attempt to save its work and give its job back; any number of times. For signal handlers."""
        self._watchdog.ask()
        if self._over:  # its number may be a stranger's by now, as telling the ledger may take long
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)

    def attend(self, *, meanwhile: Callable[[float], object], spared: Callable[[], int | None]) -> str:
        """Returns when the process and all below it have ended, and the ledger knows: what went wrong, or nothing.

        Args:
            meanwhile: called every second with the seconds that the attempt has run.
            spared: a process that is not below it.
        """
        process, started, ending = psutil.Process(self._process.pid), time.monotonic(), None
        lines: Sequence[LogLine] = ()
        while (code := _ended(process)) is None and ending is None:
            meanwhile(time.monotonic() - started)
            if (ending := self._judged()) is not None:
                if ending.cause is Cause.STALLED:
                    lines = self._last_words()
                process.kill()
                process.wait()
        self._over = True
        # Whatever is below it, which the slot has adopted: the next attempt is to find its devices free.
        below = psutil.Process().children(recursive=True)
        kill([one for one in below if one.pid != spared()])
        self._process.forget()
        if ending is None and code:
            ending = self._death(wait_status(code))
        return self._give_back(ending, lines) if ending is not None else ""

    def _last_words(self) -> Sequence[LogLine]:
        """Where it hangs. That this cannot be found out is no reason to let it live."""
        if self._job is not None:
            try:
                return call_roll(self._process.folder, self._job)
            except (OSError, psutil.Error) as error:
                _LOG.warning("%s: nobody can say where it hangs: %s", self._assignment.job_id, error)
        return ()

    def _judged(self) -> Ending | None:
        with contextlib.suppress(PodiumError):
            self.see(self._store.get(self._assignment.job_id))
        return self._watchdog.verdict()

    def _death(self, status: int) -> Ending:
        cause = self._memory.cause(status)
        outcome = death_of(describe_exit(status), self._node, cause)
        # One that was to stop anyway is nobody's fault.
        return Ending(cause=Cause.PREEMPTED if self._watchdog.stopping else cause, outcome=outcome)

    def _give_back(self, ending: Ending, lines: Sequence[LogLine]) -> str:
        _LOG.warning("%s, attempt %d: %s", self._assignment.job_id, self._assignment.attempt, ending.outcome)
        give_back(self._store, self._assignment, ending, lines)
        return ending.outcome


def give_back(store: JobStore, assignment: Assignment, ending: Ending, lines: Sequence[LogLine] = ()) -> None:
    """Tells the ledger that an attempt has ended, for as long as it takes; nothing where it knows that already.

    Args:
        store: the ledger.
        assignment: the attempt.
        ending: why.
        lines: last words for the job's log.
    """
    with contextlib.suppress(StaleFenceError):
        insist(lambda: store.recover(assignment, ending.outcome, cause=ending.cause, lines=lines))


def _ended(process: psutil.Process) -> int | None:
    """The exit code, negative for a signal, of a child that ends within a second or so; None: it goes on."""
    try:
        code = process.wait(timeout=_TICK)
    except psutil.TimeoutExpired:
        return None
    # Nobody else waits for it, so psutil knows; were it otherwise, it is no success.
    return 1 if code is None else int(code)
