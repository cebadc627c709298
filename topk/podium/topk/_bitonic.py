"""Batcher's bitonic network, cut down to any number of lanes."""

from dataclasses import dataclass
from typing import ClassVar

from podium.topk._card import Card
from podium.topk._network import JUMPS, SortingNetwork
from podium.topk._schedule import Layer


@dataclass(frozen=True, kw_only=True)
class Bitonic(SortingNetwork):
    """Bitonic sort (Batcher 1968): O(log^2 m) layers."""

    card: ClassVar[Card] = Card(
        summary="Batcher's bitonic network, cut to any number of scores.",
        citation="Petersen, Kuehne, Borgelt, Deussen: Differentiable Top-k Classification Learning, ICML 2022",
        cost="O(m log^2 m) comparators in about log2(m)^2 / 2 layers.",
        caveats=(
            "It compares scores that are far apart in order early on, so that ranks blur more than in the others.",
            JUMPS,
        ),
    )

    @staticmethod
    def layers(m: int, k: int) -> tuple[Layer, ...]:
        """Return blocks b = 0, 1, ... of layers with distances 2^b, ..., 1, cut from a power of two to m lanes."""
        blocks = (m - 1).bit_length()
        missing = (1 << blocks) - m
        return tuple(_layer(block, 1 << level, m, missing) for block in range(blocks) for level in range(block, -1, -1))


def _layer(block: int, distance: int, m: int, missing: int) -> Layer:
    # The missing lanes are the lowest ones, as if they held minus infinity and never moved.
    pairs = []
    for lane in range(missing, m + missing):
        if lane & distance == 0:
            low, high = lane - missing, lane + distance - missing
            ascending = (lane >> (block + 1)) % 2 == 0
            pairs.append((low, high) if ascending else (high, low))
    return tuple(pairs)
