"""An attempt on a machine that is not its first: starts the ranks here, and leaves everything else to the first one.

It writes nothing to the ledger. That the attempt goes on it sees there, and by its line to the first machine, which
ends when the attempt does, or when its process dies.
"""

import logging
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.job import Cause, Job
from podium.jobs.store import Assignment, JobStore
from podium.worker.launch import Place, exits, launch
from podium.worker.memory import MemoryWatch
from podium.worker.processes import folder_prefix, remove_abandoned
from podium.worker.pulse import attempt_folder
from podium.worker.rank_line import Line
from podium.worker.relay import relaying
from podium.worker.rendezvous import Invitation
from podium.worker.stacks import collect
from podium.worker.stop import StopFlag

_LOG = logging.getLogger(__name__)
#: How soon an order is passed on, how soon the first machine is asked for again, and how often signs are given.
_TICK, _PAUSE, _SECOND = 0.1, 0.25, 1.0


class Follower:
    """Runs one machine's ranks of an attempt on several.

    Args:
        store: the ledger.
        assignment: the attempt.
        stop: raised when this machine asks for its slots.
        node: this machine.
        address: its own, where the others reach it.
        mark: the argument by which the processes are found.
        environment: of the ranks.
    """

    def __init__(
        self,
        store: JobStore,
        assignment: Assignment,
        stop: StopFlag,
        *,
        node: str,
        address: str,
        mark: str,
        environment: Mapping[str, str],
    ) -> None:
        self._store, self._assignment, self._stop = store, assignment, stop
        self._node, self._address, self._mark, self._environment = node, address, mark, environment
        self._told = False

    def run(self, job: Job) -> None:
        """Runs the ranks until they end or the attempt does; none runs any more when this returns or raises.

        Args:
            job: as the ledger has it.

        Raises:
            StaleFenceError: the attempt is over.
        """
        invitation, line = self._meet()
        memory = MemoryWatch()
        remove_abandoned(self._mark)
        temporary = tempfile.TemporaryDirectory(prefix=folder_prefix(self._mark), ignore_cleanup_errors=True)
        with _hearing(line, self._node) as over, temporary as name:
            folder = Path(name)
            with relaying(folder / "line", invitation.call):
                place = self._place(job, invitation)
                launcher = launch(place, folder, mark=self._mark, environment=self._environment)
                try:
                    self._attend(launcher, line, over)
                finally:
                    launcher.kill()
                    launcher.wait()
            with suppress(OSError):  # the first machine has ended the attempt
                line.send("ended", well=launcher.returncode == 0, **_how(exits(folder), memory))

    def _meet(self) -> tuple[Invitation, Line]:
        """Waits for the first machine."""
        said = ""
        while True:
            try:
                if text := self._store.rendezvous(self._assignment):
                    invitation = Invitation.parse(text)
                    return invitation, Line(invitation.call())
            except (UnavailableError, OSError) as error:
                if said != (said := str(error)):  # a firewall, say: nobody else can tell why this machine does not come
                    _LOG.warning("the first machine of %s cannot be reached: %s", self._assignment.job_id, error)
            time.sleep(_PAUSE)

    def _place(self, job: Job, invitation: Invitation) -> Place:
        nodes = [member.node for member in job.attempts[-1].members]
        return Place(
            ranks=job.spec.resources.gpus,
            index=nodes.index(self._node),
            machines=len(nodes),
            address=self._address,
            store=f"{invitation.address}:{invitation.store}",
            name=f"{job.id}-{self._assignment.attempt}",
        )

    def _attend(self, launcher: "subprocess.Popen[bytes]", line: Line, over: threading.Event) -> None:
        """Passes on what this machine wants, until the ranks are gone, or are to be."""
        with suppress(OSError):
            line.send("here", node=self._node)
        said = float("-inf")
        while not over.is_set():
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(timeout=_TICK)
                return
            if time.monotonic() - said >= _SECOND:
                said = time.monotonic()
                self._give_signs(line, over)
        _LOG.info("leaving %s: its first machine ended attempt %d", self._assignment.job_id, self._assignment.attempt)

    def _give_signs(self, line: Line, over: threading.Event) -> None:
        try:
            line.send("alive")
            if self._stop.reason is not None and not self._told:
                line.send("stop", reason=self._stop.reason.value)
                self._told = True
            self._store.rendezvous(self._assignment)
        except UnavailableError as error:
            # The first machine would end the line, had it lost the attempt.
            _LOG.warning("%s is not seen in the ledger: %s", self._assignment.job_id, error)
        except (OSError, StaleFenceError):
            over.set()


def _how(codes: Mapping[int, int], memory: MemoryWatch) -> dict[str, Any]:
    """How ranks ended, as it is told on the line."""
    causes = {memory.cause(-code) for code in codes.values() if code < 0}
    return {"exits": codes, "cause": (Cause.OOM_HOST if Cause.OOM_HOST in causes else Cause.INTERNAL).name}


@contextmanager
def _hearing(line: Line, node: str) -> Iterator[threading.Event]:
    """An event that is set when the other end is gone. Tells it where the processes here hang, when it asks."""
    over, folder = threading.Event(), attempt_folder()

    def listen() -> None:
        try:
            for message in line:
                if message["kind"] == "stacks" and folder is not None:
                    with suppress(OSError):  # it no longer wants to know
                        line.send("stacks", told=collect(folder, f" on {node}"))
        finally:
            over.set()

    listener = threading.Thread(target=listen, name="line", daemon=True)
    listener.start()
    try:
        yield over
    finally:
        line.end()
        listener.join()
        line.close()
