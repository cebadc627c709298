"""The odd-even transposition network: m layers of neighbour comparators."""

from dataclasses import dataclass

from podium.topk._network import SortingNetwork
from podium.topk._schedule import Layer


@dataclass(frozen=True, kw_only=True)
class OddEven(SortingNetwork):
    """Odd-even transposition sort: deepest of the networks, m layers, for small m."""

    @staticmethod
    def layers(m: int, k: int) -> tuple[Layer, ...]:
        """Return m layers; layer t compares lanes (i, i + 1) for i = t mod 2, t mod 2 + 2, ..."""
        return tuple(tuple((i, i + 1) for i in range(t % 2, m - 1, 2)) for t in range(m))
