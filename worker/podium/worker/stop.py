"""The one flag that ends an attempt early, whoever raises it: the user, the machine, the clock or a newer attempt."""

import threading
import time
from collections.abc import Callable

from podium.worker.job_context import StopReason


class StopFlag:
    """Set from any thread or signal handler, read by the loop before every step.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline: float | None = None
        self._reason: StopReason | None = None
        self._fenced = threading.Event()

    def request(self, reason: StopReason) -> None:
        """Asks the attempt to end. The first reason stays, but being fenced out is above all."""
        if reason is StopReason.FENCED:
            self._fenced.set()
        elif self._reason is None:
            self._reason = reason

    def end_in(self, seconds: float) -> None:
        """Sets the deadline."""
        self._deadline = self._clock() + seconds

    @property
    def reason(self) -> StopReason | None:
        """Why to stop; None: go on."""
        if self._fenced.is_set():
            return StopReason.FENCED
        if self._reason is None and self._deadline is not None and self._clock() >= self._deadline:
            return StopReason.DEADLINE
        return self._reason
