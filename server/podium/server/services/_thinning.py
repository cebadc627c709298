"""Series of very many points, in arrays: each step once, and thinned so that a plot looks the same."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from podium.server.services._columns import Values
from podium.server.services._varints import Steps


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
        whole = len(inner) - len(inner) % size
        kept = np.concatenate(
            (
                [0, count - 1],
                *(np.arange(1, whole + 1, size) + places for places in _extremes(inner[:whole].reshape(-1, size))),
                *(1 + whole + places for places in _extremes(inner[whole:].reshape(1, -1))),
            )
        )
        # np.unique takes longer than all the rest.
        kept.sort()
        kept = kept[np.append(True, kept[1:] != kept[:-1])]
    return steps[kept], values[kept]


def _extremes(stretches: Values) -> Iterator[NDArray[np.intp]]:
    """Of each row the place of its lowest number and that of its highest; of one without numbers, its first place."""
    if not stretches.size:
        return
    for extreme, beyond in ((np.argmin, np.inf), (np.argmax, -np.inf)):
        places = extreme(stretches, axis=1)
        # Of a row that has a NaN, it is that one's place.
        odd = np.flatnonzero(np.isnan(np.take_along_axis(stretches, places[:, None], axis=1)))
        if len(odd):
            some = stretches[odd]
            some[np.isnan(some)] = beyond
            places[odd] = extreme(some, axis=1)
        yield places
