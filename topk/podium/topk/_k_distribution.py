"""P_K, the distribution of k that the loss averages over."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class KDistribution:
    """A checked P_K: its support in increasing order and the probability of each k."""

    ks: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def from_mapping(cls, k: Mapping[int, float]) -> Self:
        """Check a mapping from k to its weight and drop the ks of weight zero.

        Raises:
            ValueError: If a k is below 1 or no integer, a weight is negative, or their sum is further than 1e-6 from 1.
        """
        for value, weight in k.items():
            _check_entry(value, weight)
        total = math.fsum(k.values())
        if abs(total - 1) > _TOLERANCE:
            raise ValueError(f"the weights of k sum to {total}; scale them to sum to 1.")
        support = {value: float(k[value]) for value in sorted(k) if k[value] > 0}
        return cls(ks=tuple(support), weights=tuple(support.values()))


def _check_entry(k: int, weight: float) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k holds {k!r}; every k must be an integer of at least 1.")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight of k={k} is {weight}; give a number from 0 to 1.")
