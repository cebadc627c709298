"""Where images come from: files and archives by their index."""

import math
import os
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from podium.jobs.datasets import SplitIndex
from podium.jobs.locations import is_uri
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

    def identities(self) -> npt.NDArray[np.int64]:
        """A number for the bytes of each image, (images,), the same in every index that a process holds."""
        real = cache(os.path.realpath)
        parts = (entry.path.rpartition("/") for entry in self._entries)
        files = ((folder if is_uri(folder) else real(folder), name) for folder, _, name in parts)
        found = (hash((*file, entry.offset)) for file, entry in zip(files, self._entries, strict=True))
        # Not a set: there may be millions.
        return np.fromiter(found, dtype=np.int64, count=len(self._entries))
