"""The process of the next attempt, started ahead of it: importing torch takes longer than a small job's first steps."""

import json
import os
import sys

from podium.jobs.delivery import payload
from podium.jobs.store import Assignment


class Spare:
    """A process in a group of its own that waits for an attempt to run. It ends when this object's process does.

    Args:
        mark: the argument by which the slot's processes are found.
    """

    def __init__(self, mark: str) -> None:
        orders, self._orders = os.pipe()
        command = (sys.executable, "-m", "podium.worker.horse", mark, str(os.getpid()))
        listen = [(os.POSIX_SPAWN_DUP2, orders, 0)]
        self.pid = os.posix_spawn(sys.executable, command, os.environ, setpgroup=0, file_actions=listen)
        os.close(orders)

    def give(self, assignment: Assignment) -> bool:
        """Tells it what to run, once; False where it has died, as any process may."""
        order = json.dumps(payload(assignment)).encode() + b"\n"
        try:
            os.write(self._orders, order)
        except BrokenPipeError:
            os.waitpid(self.pid, 0)
            return False
        finally:
            self.dismiss()
        return True

    def dismiss(self) -> None:
        """Says nothing more to it; without an order it ends."""
        os.close(self._orders)
