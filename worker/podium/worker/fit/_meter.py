"""How fast, and how long still."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from podium.jobs.job import Progress


class Meter:
    """Counts images of one phase.

    Args:
        phase: the phase's name.
        total: images in all.
        done: images that earlier attempts have done.
        clock: seconds that never go backwards.
    """

    def __init__(self, phase: str, total: int, *, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._phase = phase
        self._total = total
        self._done = done
        self._measured = 0
        self._clock = clock
        self._start = clock()

    def skip(self, images: int) -> None:
        """Images that were done before; they do not count for the speed."""
        self._done += images

    def progress(self, images: int, *, step: int = 0, total_steps: int = 0) -> Progress:
        """The progress after so many more images."""
        self._done += images
        self._measured += images
        speed = self._measured / max(self._clock() - self._start, 1e-9)
        return Progress(
            phase=self._phase,
            step=step,
            total_steps=total_steps,
            fraction=min(1.0, self._done / max(1, self._total)),
            images_per_second=speed,
            eta_seconds=max(0, self._total - self._done) / speed,
        )


class Waiting:
    """Which share of the time a device waits for images.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waited = self._worked = 0.0

    @contextmanager
    def for_images(self) -> Iterator[None]:
        """Within, the device has nothing to do."""
        start = self._clock()
        yield
        self._waited += self._clock() - start

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within, it has."""
        start = self._clock()
        yield
        self._worked += self._clock() - start

    def share(self) -> float:
        """In [0, 1], since the last question."""
        share = self._waited / max(self._waited + self._worked, 1e-9)
        self._waited = self._worked = 0.0
        return share
