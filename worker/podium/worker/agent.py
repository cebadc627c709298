"""The node agent: says that the machine is there, keeps one supervisor a slot running, and cleans up after the dead."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.job import Cause, Node, NodeState, Slot
from podium.jobs.store import Assignment, Drain, JobStore, Leases
from podium.worker.inventory import SLOT_DEVICES, slot_devices
from podium.worker.memory_check import MemoryCheck
from podium.worker.noticeboard import FOLDER, Noticeboard
from podium.worker.processes import (
    FOR_THE_SUPERVISOR,
    folder_prefix,
    is_of_ranks,
    kill,
    marked,
    ranks_mark,
    remove_abandoned,
    slot_mark,
    wait_until,
)

_LOG = logging.getLogger(__name__)
_TICK = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
#: A supervisor that lived so long, in seconds, starts again without a pause.
_HEALTHY = 60.0
#: How long an agent that leaves tries to reach the ledger, in seconds; then the leases say what it could not.
_LAST_WORDS = 15.0


class Supervisor:
    """The process of one slot, started again whenever it ends.

    Args:
        slot: the slot.
        start: starts its process.
        leftovers: the processes of this slot that still run.
        recover: gives the slot's job back, when nothing of it runs any more, and says why.
        grace: how long what is left of a dead one may take to save its work, in seconds.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        start: Callable[[], "subprocess.Popen[bytes]"],
        leftovers: Callable[[], list[psutil.Process]],
        recover: Callable[[Cause, str], None],
        grace: float,
    ) -> None:
        self.slot = slot
        self._grace = grace
        self._start = start
        self._leftovers = leftovers
        self._recover = recover
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._died: float | None = None
        self._clean = True
        self._pause = _FIRST_PAUSE

    @property
    def running(self) -> bool:
        """Whether anything of the slot runs."""
        return (self._process is not None and self._process.poll() is None) or bool(self._leftovers())

    @property
    def trouble(self) -> str:
        """Why the slot takes no jobs, in words; empty: its process is there for them."""
        return "" if self._process is not None else "its supervisor died and is being started again"

    def keep(self) -> None:
        """Starts the process where none runs. A dead one's attempt may save its work first, within its grace."""
        now = time.monotonic()
        if self._process is not None:
            if self._process.poll() is None:
                return
            _LOG.warning("slot %d: its supervisor ended with %s", self.slot.index, self._process.returncode)
            self._pause = _FIRST_PAUSE if now - self._started > _HEALTHY else min(2 * self._pause, _LONGEST_PAUSE)
            self._process, self._died, self._clean = None, now, False
        if self._died is not None and not self._buried(now - self._died):
            return
        self._process, self._started, self._died = self._start(), now, None

    def _buried(self, dead_for: float) -> bool:
        """Whether nothing is left of the slot's last life, and its pause is over."""
        if not self._clean:
            if (left := self._leftovers()) and dead_for < self._grace:
                return False
            kill(left)
            self._recover(Cause.INTERNAL, "its supervisor died")
            self._clean = True
        return dead_for >= self._pause

    def stop(self) -> None:
        """Asks the process to let its attempt save its work, and to leave."""
        self._signal(signal.SIGTERM)

    def requeue(self) -> None:
        """Asks the process to let its attempt, if it has one, save its work and give its job back, and to stay."""
        self._signal(signal.SIGUSR1)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def reap(self) -> None:
        """Kills what is left."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        kill(self._leftovers())


class Agent:
    """The agent of one machine.

    Args:
        store: the ledger.
        node: the machine's record.
        leases: how often to be heard, and how long attempts may take to save their work.
        mark: the argument that all processes of this node carry.
    """

    def __init__(self, store: JobStore, node: Node, *, leases: Leases, mark: str) -> None:
        self._store = store
        self._node = node
        self._interval = leases.node / 3
        self._grace = leases.grace
        self._mark = mark
        self._last_heartbeat = float("-inf")
        self._stopping = self._finishing = False
        self._board = Noticeboard(Path(tempfile.mkdtemp(prefix=folder_prefix(mark))))
        self._memory_check = MemoryCheck(node.slots, self._board)
        self._supervisors = [self._supervisor(slot) for slot in node.slots]

    def request_stop(self) -> None:
        """Ends `run` in good order. For signal handlers."""
        self._stopping = True

    def request_finish(self) -> None:
        """The same, once the jobs that are here have ended; no others are taken. For signal handlers."""
        self._finishing = True

    def run(self) -> None:
        """Works until asked to stop; then lets every attempt save its work, and leaves the pool."""
        # Who starts a process passes this on: a supervisor that gets SIGUSR1 before it is ready does not die of it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._bury_predecessor()
        self._memory_check.start()
        while not self._stopping:
            before = self._troubles()
            for supervisor in self._supervisors:
                self._reaching(supervisor.keep)
            if self._troubles() != before:
                # A job that is sent to a slot where nobody is would wait there.
                self._last_heartbeat = float("-inf")
            self._heartbeat()
            time.sleep(_TICK)
        self._leave()
        shutil.rmtree(self._board.folder, ignore_errors=True)

    def _bury_predecessor(self) -> None:
        """What an agent that was killed left here may save its work first; then its jobs go back."""
        for process in marked(lambda argument: self._is_ours(argument) and not is_of_ranks(argument)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        wait_until(lambda: not self._strays(), self._grace)
        kill(self._strays())
        remove_abandoned(self._mark)
        why = "its machine was started again, or its agent was"
        while not self._stopping and not self._reaching(lambda: self._recover(None, Cause.NODE_LOST, why)):
            time.sleep(_TICK)

    def _strays(self) -> list[psutil.Process]:
        return marked(self._is_ours)

    def _is_ours(self, argument: str) -> bool:
        return argument.startswith(f"{self._mark}:")

    def _leave(self) -> None:
        _LOG.info("draining: attempts save their work and go back to the queue")
        self._node = replace(self._node, state=NodeState.DRAINING)
        self._last_heartbeat = float("-inf")
        end = time.monotonic() + self._grace + FOR_THE_SUPERVISOR
        for supervisor in self._supervisors:
            supervisor.stop()
        while any(supervisor.running for supervisor in self._supervisors) and time.monotonic() < end:
            self._heartbeat()
            time.sleep(_TICK / 5)
        for supervisor in self._supervisors:
            supervisor.reap()
        wait_until(lambda: self._reaching(self._take_leave), _LAST_WORDS)

    def _take_leave(self) -> None:
        """Gives back what did not save its work in time, and goes off the list. May be repeated."""
        self._recover(None, Cause.PREEMPTED, "its machine left the pool, and it had not saved its work in time")
        self._store.remove_node(self._node.id)

    def _heartbeat(self) -> None:
        if time.monotonic() - self._last_heartbeat >= self._interval:
            self._last_heartbeat = time.monotonic()
            self._reaching(self._report)

    def _report(self) -> None:
        """Says how the machine is, and does what is asked of it."""
        troubles = self._troubles()
        slots = tuple(replace(slot, trouble=troubles.get(slot.index, "")) for slot in self._node.slots)
        state = NodeState.DRAINING if self._finishing else self._node.state
        drain = self._store.heartbeat(replace(self._node, slots=slots, state=state))
        if drain is Drain.REQUEUE:
            for supervisor in self._supervisors:
                supervisor.requeue()
        if self._finishing and not self._holding(None):
            self._stopping = True

    def _troubles(self) -> dict[int, str]:
        """Why slots take no jobs, by their numbers."""
        dead = {one.slot.index: one.trouble for one in self._supervisors if one.trouble}
        return {**self._memory_check.troubles(), **dead}

    def _holding(self, slot: int | None) -> list[tuple[Assignment, int]]:
        """The attempts that the ledger shows on a slot, or on any, of this machine, each with its first slot here."""
        # The supervisor of the first slot has the attempt's process.
        return [
            (assignment, member.slots[0])
            for job, assignment, _ in self._store.holding(self._store.jobs_on(self._node.id))
            for member in job.attempts[-1].members
            if member.node == self._node.id and slot in (None, member.slots[0])
        ]

    def _recover(self, slot: int | None, cause: Cause, why: str) -> None:
        """Gives back the jobs on a slot, or on any, of this machine, where nothing runs now."""
        for assignment, first in self._holding(slot):
            outcome = f"the attempt ended with slot {first} of {self._node.id}: {why}"
            with contextlib.suppress(StaleFenceError):
                self._store.recover(assignment, outcome, cause=cause)

    def _reaching(self, call: Callable[[], None]) -> bool:
        """Whether the ledger could be reached; where not, the next tick tries again."""
        try:
            call()
        except UnavailableError as error:
            _LOG.warning("%s: %s", self._node.id, error)
            return False
        return True

    def _supervisor(self, slot: Slot) -> Supervisor:
        own = slot_mark(self._mark, slot.index)

        def recover(cause: Cause, why: str) -> None:
            self._recover(slot.index, cause, why)
            self._board.vacate(slot.index)

        return Supervisor(
            slot,
            start=lambda: self._spawn(slot, own),
            leftovers=lambda: marked(lambda argument: argument in (own, ranks_mark(own))),
            recover=recover,
            grace=self._grace,
        )

    def _spawn(self, slot: Slot, own: str) -> "subprocess.Popen[bytes]":
        threads = max(1, (os.cpu_count() or 1) // len(self._node.slots))
        environment = {
            "OMP_NUM_THREADS": str(threads),
            # Threads that spin while they wait take the CPU from each other where others compute too.
            "OMP_WAIT_POLICY": "PASSIVE",
            # Bit-identical resumption on a GPU needs it before CUDA starts.
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "CUDA_VISIBLE_DEVICES": slot_devices((slot,)),
            # For attempts that hold more slots than this one.
            SLOT_DEVICES: slot_devices(self._node.slots),
            FOLDER: str(self._board.folder),
            # Nothing is downloaded behind anybody's back.
            "HF_HUB_OFFLINE": "1",
        }
        command = (sys.executable, "-m", "podium.worker.slot", own, str(os.getpid()), self._node.id, str(slot.index))
        # A session of its own: Ctrl-C is for the agent, which drains.
        return subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
