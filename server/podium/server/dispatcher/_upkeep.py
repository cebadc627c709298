"""What the leader does beside dispatching, in a thread of its own: a storage that hangs must not stop the leader."""

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
            leads next; two servers may do it at once.
        every: seconds between two looks.
    """

    def __init__(self, tasks: Mapping[str, Callable[[], object]], *, every: float = 5.0) -> None:
        self._tasks = tasks
        self._every = every
        self._due = dict.fromkeys(tasks, float("-inf"))
        self._looked = float("-inf")
        self._thread: threading.Thread | None = None

    def nudge(self) -> None:
        """Begins a look where one is due and the last one is over. Returns at once."""
        if time.monotonic() - self._looked < self._every or (self._thread and self._thread.is_alive()):
            return
        self._looked = time.monotonic()
        # A daemon: see `tasks`.
        self._thread = threading.Thread(target=self._look, name="podium-upkeep", daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """What was put off is due: the ledger is back, and it may have been all that was missing."""
        self._due = dict.fromkeys(self._tasks, float("-inf"))

    def _look(self) -> None:
        for name, task in self._tasks.items():
            if time.monotonic() >= self._due[name]:
                self._run(name, task)

    def _run(self, name: str, task: Callable[[], object]) -> None:
        try:
            task()
        except (UnavailableError, OSError) as error:
            _LOG.warning("%s is put off for a minute: %s", name, error)
            self._due[name] = time.monotonic() + _PAUSE
        except Exception:
            _LOG.exception("%s failed and is tried again", name)
