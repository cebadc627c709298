"""Ctrl-C between two events, never between showing one and remembering that it was shown."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Within the `with` block Ctrl-C raises KeyboardInterrupt, but within `held` only at its end."""

    def __init__(self) -> None:
        self._held = False
        self._waiting = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What happens in here happens as a whole."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._waiting:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._held:
            raise KeyboardInterrupt
        self._waiting = True
