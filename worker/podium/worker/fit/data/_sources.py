"""Where images come from: files and archives by their index."""

import math
from typing import Protocol

from PIL import Image

from podium.jobs.datasets import SplitIndex
from podium.worker.fit.data._decode import decode


class Images(Protocol):
    """The images of one source, by place. Any number of threads may ask at once."""

    @property
    def digest(self) -> str:
        """SHA-256 over which bytes the images are, in hexadecimal."""

    def __len__(self) -> int: ...

    def image(self, place: int, *, at_least: float = math.inf) -> Image.Image:
        """One image, RGB; where its short side stays above `at_least` pixels it may come smaller than it is.

        Raises:
            DatasetError: it cannot be used; names it.
        """

    def name(self, place: int) -> str:
        """What to call an image in a message."""


class IndexedImages:
    """The images of an index: files, or parts of archives."""

    def __init__(self, index: SplitIndex) -> None:
        self._entries = index.entries
        self.digest = index.digest

    def __len__(self) -> int:
        return len(self._entries)

    def image(self, place: int, *, at_least: float = math.inf) -> Image.Image:
        """See `Images`."""
        return decode(self._entries[place], at_least)

    def name(self, place: int) -> str:
        """See `Images`."""
        return self._entries[place].name
