"""Series of very many points, in arrays: read from the ledger's bytes, and thinned so that a plot looks the same."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Steps: TypeAlias = NDArray[np.uint64]
Values: TypeAlias = NDArray[np.float64]


def decoded(data: bytes) -> Steps:
    """The numbers of a column of varints."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
    lengths = ends - starts + 1
    shortest, longest = int(lengths.min(initial=10)), int(lengths.max(initial=0))
    if shortest == longest:  # as nearly always, since neighbours are of one size
        return _summed(octets.reshape(-1, longest))
    numbers = np.empty(len(ends), np.uint64)
    for length in range(shortest, longest + 1):
        alike = np.flatnonzero(lengths == length)
        numbers[alike] = _summed(octets[starts[alike, None] + np.arange(length)])
    return numbers


def _summed(octets: NDArray[np.uint8]) -> Steps:
    """Of rows of as many octets each the numbers, seven bits an octet, the lowest first."""
    numbers = np.zeros(len(octets), np.uint64)
    for place in range(octets.shape[1]):
        numbers |= (octets[:, place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return numbers


def merged(steps: Steps, values: Values) -> tuple[Steps, Values]:
    """By step, each step once: of several values that which came last."""
    if len(steps) < 2 or bool((steps[1:] > steps[:-1]).all()):
        return steps, values
    order = np.argsort(steps, kind="stable")
    steps = steps[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return steps[last], values[order[last]]


def thinned(steps: Steps, values: Values, most: int) -> tuple[Steps, Values]:
    """At most so many of the points, in their order: the first, the last, and of every stretch the lowest and highest.

    The stretches are of equal numbers of points. A NaN is neither low nor high: a stretch of nothing else keeps its
    first. Infinities are as low and as high as can be.

    Args:
        steps: ascending.
        values: as many.
        most: at least 1. With 1 it is the last point, with 2 and 3 the two ends.
    """
    count = len(values)
    if count <= most:
        return steps, values
    if most < 4:
        kept = np.array([0, count - 1][-most:])
    else:
        inner = values[1:-1]
        size = -(-len(inner) // ((most - 2) // 2))
        grid = np.full((-(-len(inner) // size), size), np.nan)
        grid.ravel()[: len(inner)] = inner
        none, first = np.isnan(grid), np.arange(len(grid)) * size + 1
        # What is no number comes last, and so does what fills the grid up: neither is chosen while there is another.
        grid[none] = np.inf
        lowest = first + grid.argmin(axis=1)
        grid[none] = -np.inf
        highest = first + grid.argmax(axis=1)
        kept = np.unique(np.concatenate(([0], lowest, highest, [count - 1])))
    return steps[kept], values[kept]
