"""The splitter selection network, which sorts only as much as the top k need."""

from dataclasses import dataclass
from typing import ClassVar

from podium.topk._card import Card
from podium.topk._network import JUMPS, SortingNetwork
from podium.topk._schedule import Layer


@dataclass(frozen=True, kw_only=True)
class SplitterSelection(SortingNetwork):
    """Splitter selection (Borgelt, in Petersen et al., ICML 2022): shallow, and the least lane dependent."""

    card: ClassVar[Card] = Card(
        summary="The splitter selection network: only as much sorting as the top k needs.",
        citation="Petersen, Kuehne, Borgelt, Deussen: Differentiable Top-k Classification Learning, ICML 2022",
        cost="The fewest comparators of the networks, about 3 m for k = 5.",
        caveats=("Its depth grows with the largest k: from k = 10 on bitonic may be shallower.", JUMPS),
    )

    @staticmethod
    def layers(m: int, k: int) -> tuple[Layer, ...]:
        """Return cascades of splitters over lanes with equally many known larger ones, until k are settled."""
        build = _Build(m)
        floor = 0
        while any([build.split(bound) for bound in range(k - 1, floor - 1, -1)]):
            floor += 1
        # Built with the largest in lane 0; everywhere else the largest is in the last lane.
        return tuple(tuple((m - 1 - smaller, m - 1 - larger) for larger, smaller in layer) for layer in build.layers)


class _Build:
    """The network while it grows: per lane, how many values are known to be larger, and the first free layer."""

    def __init__(self, m: int) -> None:
        self.layers: list[list[tuple[int, int]]] = []
        self._bound = [0] * m
        self._free = [0] * m

    def split(self, bound: int) -> bool:
        """Put a cascade on all lanes with this bound; say whether there was anything to split."""
        lanes = [lane for lane, known in enumerate(self._bound) if known == bound]
        if len(lanes) < 2:
            return False
        cascade = _cascade(len(lanes))
        start = max(self._free[lane] for lane in lanes)
        for depth, pairs in enumerate(cascade, start):
            self._place(depth, [(lanes[i], lanes[j]) for i, j in pairs])
        for position, lane in enumerate(lanes):
            self._bound[lane] += (1 << position.bit_count()) - 1
            self._free[lane] = start + len(cascade)
        return True

    def _place(self, depth: int, pairs: list[tuple[int, int]]) -> None:
        while len(self.layers) <= depth:
            self.layers.append([])
        self.layers[depth].extend(pairs)


def _cascade(size: int) -> list[list[tuple[int, int]]]:
    distances = [1 << level for level in reversed(range((size - 1).bit_length()))]
    return [[(j, j + distance) for j in range(size - distance) if j & distance == 0] for distance in distances]
