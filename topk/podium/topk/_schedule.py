"""A sorting network's comparators as slices of rows, one set per network, size and device.

A comparator layer is arithmetic on two slices of the lanes' rows, one of lower lanes and one of upper ones. Where a
layer's lanes do not lie evenly spaced, the rows are laid out anew before it: lower lanes first, upper lanes next and
idle lanes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from podium.topk._constants import outlasting

Layer = tuple[tuple[int, int], ...]
"""Comparators on disjoint lanes, as (lane that receives the smaller value, lane that receives the larger)."""


class Step(NamedTuple):
    """One layer of comparators.

    Attributes:
        enter: The rows of the previous layout in this layer's order, (m,); None if they stay as they are.
        leave: The inverse of `enter`.
        low: The rows that receive the smaller values.
        high: The rows that receive the larger ones.
    """

    enter: Tensor | None
    leave: Tensor | None
    low: slice
    high: slice


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Tables for one network on m lanes and one device.

    Attributes:
        steps: The layers.
        ranks: Row of rank 1, 2, ..., k in the last layout, (k,).
    """

    steps: tuple[Step, ...]
    ranks: Tensor

    @property
    def moves(self) -> bool:
        """Whether rows are laid out anew anywhere."""
        return any(step.enter is not None for step in self.steps)


def prune(layers: Sequence[Layer], m: int, k: int) -> list[Layer]:
    """Drop the comparators that cannot reach the last k lanes."""
    needed = set(range(m - k, m))
    kept: list[Layer] = []
    for layer in reversed(layers):
        useful = tuple(pair for pair in layer if not needed.isdisjoint(pair))
        needed.update(lane for pair in useful for lane in pair)
        if useful:
            kept.append(useful)
    return kept[::-1]


def compile_schedule(layers: Sequence[Layer], m: int, k: int, device: torch.device) -> Schedule:
    """Lay out `layers` on m lanes; rank 1 is the last lane."""
    row_of = list(range(m))
    steps = []
    for layer in layers:
        lows, highs = zip(*sorted((row_of[low], row_of[high]) for low, high in layer), strict=True)
        low, high = _as_slice(lows), _as_slice(highs)
        if low is not None and high is not None:
            steps.append(Step(None, None, low, high))
            continue
        order, size = _layout(layer, m), len(layer)
        rows = [row_of[lane] for lane in order]
        row_of = _inverse(order)
        steps.append(Step(_index(rows, device), _index(_inverse(rows), device), slice(0, size), slice(size, 2 * size)))
    return Schedule(steps=tuple(steps), ranks=_index([row_of[m - rank] for rank in range(1, k + 1)], device))


def _as_slice(rows: Sequence[int]) -> slice | None:
    """Return the rows as a slice if they rise evenly."""
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    rising = step > 0 and all(after - row == step for row, after in pairwise(rows))
    return slice(rows[0], rows[-1] + 1, step) if rising else None


def _layout(layer: Layer, m: int) -> list[int]:
    busy = [low for low, _ in layer] + [high for _, high in layer]
    return busy + sorted(set(range(m)).difference(busy))


def _inverse(order: Sequence[int]) -> list[int]:
    inverse = [0] * len(order)
    for position, lane in enumerate(order):
        inverse[lane] = position
    return inverse


def _index(rows: Sequence[int], device: torch.device) -> Tensor:
    return outlasting(tuple(rows), torch.int64, device)
