"""The node agent: says that the machine is there, keeps one supervisor a slot running, and cleans up after the dead."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import psutil

from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.store import JobStore
from podium.worker.inventory import SLOT_DEVICES, slot_devices
from podium.worker.processes import GRACE, is_of_ranks, kill, marked, ranks_mark, slot_mark, wait_until

_LOG = logging.getLogger(__name__)
_TICK = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
#: A supervisor that lived so long, in seconds, starts again without a pause.
_HEALTHY = 60.0


class Supervisor:
    """The process of one slot, started again whenever it ends.

    Args:
        slot: the slot.
        start: starts its process.
        leftovers: the processes of this slot that still run.
        recover: gives the slot's job back, when nothing of it runs any more.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        start: Callable[[], "subprocess.Popen[bytes]"],
        leftovers: Callable[[], list[psutil.Process]],
        recover: Callable[[], None],
    ) -> None:
        self.slot = slot
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
            if (left := self._leftovers()) and dead_for < GRACE:
                return False
            kill(left)
            self._recover()
            self._clean = True
        return dead_for >= self._pause

    def stop(self) -> None:
        """Asks the process to let its attempt save its work, and to leave."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def reap(self) -> None:
        """Kills what is left, and gives the job back."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        kill(self._leftovers())
        self._recover()


class Agent:
    """The agent of one machine.

    Args:
        store: the ledger.
        node: the machine's record.
        lease: of the node, in seconds; renewed at a third of it.
        mark: the argument that all processes of this node carry.
    """

    def __init__(self, store: JobStore, node: Node, *, lease: float, mark: str) -> None:
        self._store = store
        self._node = node
        self._interval = lease / 3
        self._mark = mark
        self._last_heartbeat = float("-inf")
        self._stopping = False
        self._supervisors = [self._supervisor(slot) for slot in node.slots]

    def request_stop(self) -> None:
        """Ends `run` in good order. For signal handlers."""
        self._stopping = True

    def run(self) -> None:
        """Works until asked to stop; then lets every attempt save its work, and leaves the pool."""
        self._bury_predecessor()
        while not self._stopping:
            self._heartbeat()
            for supervisor in self._supervisors:
                self._reaching(supervisor.keep)
            time.sleep(_TICK)
        self._drain()

    def _bury_predecessor(self) -> None:
        """What an agent that was killed left here may save its work first; then its jobs go back."""
        for process in marked(lambda argument: self._is_ours(argument) and not is_of_ranks(argument)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        wait_until(lambda: not self._strays(), GRACE)
        kill(self._strays())
        while not self._stopping and not self._reaching(lambda: self._recover(None)):
            time.sleep(_TICK)

    def _strays(self) -> list[psutil.Process]:
        return marked(self._is_ours)

    def _is_ours(self, argument: str) -> bool:
        return argument.startswith(f"{self._mark}:")

    def _drain(self) -> None:
        _LOG.info("draining: attempts save their work and go back to the queue")
        self._node = replace(self._node, state=NodeState.DRAINING)
        self._last_heartbeat = float("-inf")
        end = time.monotonic() + GRACE
        for supervisor in self._supervisors:
            supervisor.stop()
        while any(supervisor.running for supervisor in self._supervisors) and time.monotonic() < end:
            self._heartbeat()
            time.sleep(_TICK / 5)
        for supervisor in self._supervisors:
            self._reaching(supervisor.reap)
        self._reaching(lambda: self._store.remove_node(self._node.id))

    def _heartbeat(self) -> None:
        if time.monotonic() - self._last_heartbeat >= self._interval:
            self._last_heartbeat = time.monotonic()
            self._reaching(lambda: self._store.heartbeat(self._node))

    def _recover(self, slot: int | None) -> None:
        """Gives back the jobs that the ledger shows on a slot, or on any, of this machine, where nothing runs now."""
        for job, assignment, _ in self._store.holding():
            attempt = job.attempts[-1]
            if attempt.node == self._node.id and slot in (None, attempt.slot):
                try:
                    self._store.recover(assignment, f"the worker of slot {attempt.slot} on {self._node.id} died")
                except StaleFenceError:
                    continue

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
        return Supervisor(
            slot,
            start=lambda: self._spawn(slot, own),
            leftovers=lambda: marked(lambda argument: argument in (own, ranks_mark(own))),
            recover=lambda: self._recover(slot.index),
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
            # Nothing is downloaded behind anybody's back.
            "HF_HUB_OFFLINE": "1",
        }
        command = (sys.executable, "-m", "podium.worker.slot", own, str(os.getpid()), self._node.id, str(slot.index))
        # A session of its own: Ctrl-C is for the agent, which drains.
        return subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
