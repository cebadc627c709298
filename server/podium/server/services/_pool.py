"""Very many points in two large arrays, whatever they belong to."""

from collections import defaultdict
from typing import TypeVar

import numpy as np

from podium.server.services._columns import Values
from podium.server.services._varints import Steps

Array = TypeVar("Array", Steps, Values)
#: Points that there is room for at first.
_SMALL = 1 << 16


class Pool:
    """Points of several series.

    They lie in two arrays which have all their room from the moment on that they are large: then numpy asks for large
    pages of memory. Half of a query's time would go to the kernel, which puts in one small page after the other, if
    points came to lie where there was none yet; and of one series there would be a second copy.

    Args:
        room: points that the large arrays have room for; they get more where that is not enough.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._steps: Steps = np.empty(_SMALL, np.uint32)
        self._values: Values = np.empty(_SMALL)
        self._pieces: defaultdict[str, list[slice]] = defaultdict(list)
        self.points = 0
        """That are in it."""

    @property
    def names(self) -> list[str]:
        """Of the series that have points, in order."""
        return sorted(self._pieces)

    def add(self, name: str, steps: Steps, values: Values) -> None:
        """More points of a series."""
        if not len(steps):
            return
        piece = slice(self.points, self.points + len(steps))
        self._make_room(piece.stop, steps)
        self._steps[piece] = steps
        self._values[piece] = values
        self.points = piece.stop
        pieces = self._pieces[name]
        if pieces and pieces[-1].stop == piece.start:
            piece = slice(pieces.pop().start, piece.stop)
        pieces.append(piece)

    def of(self, name: str) -> tuple[Steps, Values]:
        """The points of a series, in the order they came; good until there are more."""
        pieces = self._pieces[name]
        if len(pieces) == 1:
            return self._steps[pieces[0]], self._values[pieces[0]]
        return (
            np.concatenate([self._steps[piece] for piece in pieces]),
            np.concatenate([self._values[piece] for piece in pieces]),
        )

    def clear(self) -> None:
        """Takes all of them out."""
        self._pieces.clear()
        self.points = 0

    def _make_room(self, points: int, steps: Steps) -> None:
        if points > len(self._values):
            room = max(self._room, 2 * points)
            self._steps = self._moved(self._steps, np.empty(room, self._steps.dtype))
            self._values = self._moved(self._values, np.empty(room))
        if steps.dtype.itemsize > self._steps.dtype.itemsize:
            self._steps = self._moved(self._steps, np.empty(len(self._steps), steps.dtype))

    def _moved(self, there: Array, to: Array) -> Array:
        to[: self.points] = there[: self.points]
        return to
