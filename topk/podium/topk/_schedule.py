"""A sorting network's comparators as index tables, one set per network, size and device.

Between layers the lanes are laid out anew, so that a layer's lower lanes are the first rows, its upper lanes the next
ones and its idle lanes the last: a comparator layer is then arithmetic on contiguous slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from podium.topk._constants import outlasting

Layer = tuple[tuple[int, int], ...]
"""Comparators on disjoint lanes, as (lane that receives the smaller value, lane that receives the larger)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Tables for one network on m lanes and one device.

    Attributes:
        sizes: Comparators per layer.
        enter: Per layer, the rows of the previous layout in this layer's order, (m,) each.
        leave: The inverse of `enter`.
        ranks: Row of rank 1, 2, ..., k in the last layout, (k,).
    """

    sizes: tuple[int, ...]
    enter: tuple[Tensor, ...]
    leave: tuple[Tensor, ...]
    ranks: Tensor


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
    enter: list[list[int]] = []
    for layer in layers:
        order = _layout(layer, m)
        enter.append([row_of[lane] for lane in order])
        row_of = _inverse(order)

    return Schedule(
        sizes=tuple(len(layer) for layer in layers),
        enter=tuple(_index(rows, device) for rows in enter),
        leave=tuple(_index(_inverse(rows), device) for rows in enter),
        ranks=_index([row_of[m - rank] for rank in range(1, k + 1)], device),
    )


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
