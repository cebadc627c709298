"""How long, and at what pace, something that broke is tried again."""

import random
import time
from collections.abc import Callable

from podium.jobs.errors import AbortedError, PodiumError, UnavailableError

#: What may go away by itself: the server restarts, drains, or found the reader too slow.
PASSING = (UnavailableError, AbortedError)


class Patience:
    """Waits between tries, longer each time, until nothing has succeeded for `seconds`.

    Args:
        seconds: how long to go on without success.
        clock: tells the time in seconds.
        sleep: waits.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self.success()

    def success(self) -> None:
        """Something arrived: the patience is whole again."""
        self._deadline = self._clock() + self._seconds
        self._pause = 0.1

    def wait(self, error: PodiumError) -> None:
        """Waits before the next try.

        Raises:
            PodiumError: `error` itself, when it will not pass or the patience is over.
        """
        told = getattr(error, "retry_after", None)
        if not (told or isinstance(error, PASSING)) or self._clock() >= self._deadline:
            raise error
        # Not all at the same moment, where many clients wait for one server.
        self._sleep((told or 0.0) + min(self._pause, 5.0) * random.uniform(0.5, 1.0))
        self._pause *= 2
