"""The odd-even transposition network: m layers of neighbour comparators."""

from dataclasses import dataclass
from typing import ClassVar

from podium.topk._card import Card
from podium.topk._network import JUMPS, SortingNetwork
from podium.topk._schedule import Layer


@dataclass(frozen=True, kw_only=True)
class OddEven(SortingNetwork):
    """Odd-even transposition sort: deepest of the networks, m layers, for small m."""

    card: ClassVar[Card] = Card(
        summary="The odd-even transposition network: m layers of comparators between neighbours.",
        citation="Petersen, Kuehne, Borgelt, Deussen: Differentiable Top-k Classification Learning, ICML 2022",
        cost="O(m^2) comparators in m layers: the dearest of the networks, for small m.",
        caveats=(
            "With m in the hundreds choose splitter_selection.",
            JUMPS,
        ),
    )

    @staticmethod
    def layers(m: int, k: int) -> tuple[Layer, ...]:
        """Return m layers; layer t compares lanes (i, i + 1) for i = t mod 2, t mod 2 + 2, ..."""
        return tuple(tuple((i, i + 1) for i in range(t % 2, m - 1, 2)) for t in range(m))
