"""P_K, the distribution of k that the loss averages over."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Self

_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class KDistribution:
    """A checked P_K: its support in increasing order and the probability of each k."""

    ks: tuple[float, ...]
    weights: tuple[float, ...]

    @classmethod
    def from_mapping(cls, k: Mapping[int, float] | Mapping[float, float]) -> Self:
        """Check a mapping from k to its weight and drop the ks of weight zero.

        Raises:
            ValueError: If it is no mapping, a k is no number of at least 1, a weight is negative, or their sum is
                further than 1e-6 from 1.
        """
        if not isinstance(k, Mapping):
            raise ValueError(f"k is {k!r}; give the weight of each k, such as {{1: 0.5, 5: 0.5}}.")
        for value, weight in k.items():
            _check_entry(value, weight)
        total = sum(list(k.values()))
        if abs(total - 1) > _TOLERANCE:
            raise ValueError(f"the weights of k sum to {total}; scale them to sum to 1.")
        # A whole number is an integer however it was written, so that it is one entry of every cache.
        support = {int(v) if v == int(v) else float(v): float(w) for v, w in sorted(k.items()) if w > 0}
        return cls(ks=tuple(support), weights=tuple(support.values()))


def _check_entry(k: float, weight: float) -> None:
    if isinstance(k, bool) or not isinstance(k, Real) or not (math.isfinite(k) and k >= 1):
        raise ValueError(f"k holds {k!r}; every k must be a number of at least 1.")
    if isinstance(weight, str) or weight is None or not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight of k={k} is {weight!r}; give a number from 0 to 1.")
