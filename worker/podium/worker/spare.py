"""The process of the next attempt, started ahead of it: importing torch takes longer than a small job's first steps."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from podium.jobs.delivery import payload
from podium.jobs.store import Assignment
from podium.worker.pulse import FOLDER

#: The argument of a process that starts beside an attempt: it imports with less of the processor.
BESIDE = "beside"


class Spare:
    """A process in a group of its own that waits for an attempt to run. It ends when this object's process does.

    Args:
        mark: the argument by which the slot's processes are found.
        root: where to make the folder that it shares with this object's process, which alone may enter it.
        beside: whether an attempt runs meanwhile.
    """

    def __init__(self, mark: str, root: Path, *, beside: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="attempt-", dir=root))
        orders, self._orders = os.pipe()
        words = (mark, str(os.getpid()), *((BESIDE,) if beside else ()))
        command = (sys.executable, "-m", "podium.worker.horse", *words)
        environment = os.environ | {FOLDER: str(self.folder)}
        listen = [(os.POSIX_SPAWN_DUP2, orders, 0)]
        self.pid = os.posix_spawn(sys.executable, command, environment, setpgroup=0, file_actions=listen)
        os.close(orders)

    def give(self, assignment: Assignment) -> bool:
        """Tells it what to run, once; False where it has died, as any process may."""
        order = json.dumps(payload(assignment)).encode() + b"\n"
        try:
            os.write(self._orders, order)
        except BrokenPipeError:
            os.waitpid(self.pid, 0)
            self.forget()
            return False
        finally:
            self.dismiss()
        return True

    def dismiss(self) -> None:
        """Says nothing more to it; without an order it ends."""
        os.close(self._orders)

    def forget(self) -> None:
        """Removes what the process leaves behind, once it has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)
