"""What the leader does beside dispatching, each in a thread of its own: a storage that hangs must not stop the leader.

Nor may what hangs at one folder stop what would go on at another.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from podium.jobs.errors import UnavailableError

_LOG = logging.getLogger(__name__)
_PAUSE = 60.0


class Upkeep:
    """Runs tasks now and then.

    Args:
        tasks: what to do, by what it is in words. Each may be cut short anywhere, and is then done again by whoever
            leads next; two servers may do it at once, and one beside the other.
        every: seconds between two looks.
    """

    def __init__(self, tasks: Mapping[str, Callable[[], object]], *, every: float = 5.0) -> None:
        self._tasks = tasks
        self._every = every
        self._due = dict.fromkeys(tasks, float("-inf"))
        self._looked = float("-inf")
        self._threads: dict[str, threading.Thread] = {}

    def nudge(self) -> None:
        """Begins each task that is due and not under way, where a look is due. Returns at once."""
        now = time.monotonic()
        if now - self._looked < self._every:
            return
        self._looked = now
        for name, task in self._tasks.items():
            last = self._threads.get(name)
            if now >= self._due[name] and not (last and last.is_alive()):
                # A daemon: see `tasks`.
                thread = threading.Thread(target=self._run, args=(name, task), name=f"podium-{name}", daemon=True)
                self._threads[name] = thread
                thread.start()

    def resume(self) -> None:
        """What was put off is due: the ledger is back, and it may have been all that was missing."""
        self._due = dict.fromkeys(self._tasks, float("-inf"))

    def _run(self, name: str, task: Callable[[], object]) -> None:
        try:
            task()
        except (UnavailableError, OSError) as error:
            _LOG.warning("%s is put off for a minute: %s", name, error)
            self._due[name] = time.monotonic() + _PAUSE
        except Exception:
            _LOG.exception("%s failed and is tried again", name)
