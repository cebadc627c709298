"""Random numbers without a state.

A number is a function of the seed, the epoch, the image's place, what it is for, and which of these it is: SplitMix64
(Steele et al. 2014) mixes them, for a whole batch at once.

Shape legend: B images, n numbers each.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
Numbers = npt.NDArray[np.float64]


class Draw(IntEnum):
    """What numbers are for: one kind of change never shifts the numbers of another."""

    CROP = 0
    SHIFT = 1
    FLIP = 2
    OPERATION = 3
    JITTER = 4
    ERASE = 5
    MIX = 6


def uniforms(seed: int, epoch: int, places: npt.NDArray[np.int64], draw: Draw, count: int) -> Numbers:
    """Numbers in [0, 1), (B, n).

    Args:
        seed: the job's, below 2^64.
        epoch: from 0.
        places: of the images in their source, (B,).
        draw: what they are for.
        count: n.
    """
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, int(draw)):
        key = _mixed(key, np.uint64(part))
    each = _mixed(key, places.astype(np.uint64))
    bits = _mixed(each[:, None], np.arange(count, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, epoch: int, place: int, draw: Draw) -> np.random.Generator:
    """A source of numbers of other distributions, for a batch that begins with the image at a place."""
    return np.random.default_rng([seed, 2, epoch, place, int(draw)])


def whole(numbers: Numbers, bounds: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
    """Whole numbers from 0 to below the bounds."""
    drawn: npt.NDArray[np.int64] = np.floor(numbers * bounds).astype(np.int64)
    return drawn


def _mixed(key: npt.NDArray[np.uint64], part: npt.NDArray[np.uint64] | np.uint64) -> npt.NDArray[np.uint64]:
    bits = key + _GAMMA * (np.atleast_1d(part) + np.uint64(1))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return mixed
