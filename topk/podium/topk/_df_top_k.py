"""DFTopK: a threshold between two order statistics.

Zhu et al., "Differentiable Fast Top-K Selection for Large-Scale Recommendation" (arXiv 2510.11472):
c_k = sigmoid((x_y - (x_[k] + x_[k+1]) / 2) / tau). Nothing makes the classes share k places, and nothing has to be
solved.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from podium.topk._card import Card
from podium.topk._sigmoid import Sigmoid


@dataclass(frozen=True, kw_only=True)
class DFTopK(Sigmoid):
    """DFTopK (Zhu et al. 2025); `temperature` is its tau."""

    card: ClassVar[Card] = Card(
        summary="Logistic membership with the threshold half-way between the k-th and the next score.",
        citation="Zhu, Zhang, Wang, Wang, Li, Zhou, Wen, Jiang, Lin, Yang: Differentiable Fast Top-K Selection for "
        "Large-Scale Recommendation, 2025",
        cost="O(m), the cheapest.",
        caveats=("Besides the label, only the two scores next to the threshold get a gradient.",),
    )
    fractional_k: ClassVar[bool] = False

    def thresholds(self, z: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return half-way between ranks k and k + 1; see `ThresholdSorter.thresholds`."""
        return torch.stack([(z[..., int(k) - 1] + z[..., int(k)]) / 2 for k in ks], dim=-1)

    def shares(self, z: Tensor, places: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return a half for each of the two scores; see `ThresholdSorter.shares`."""
        halves = [((places == int(k) - 1) | (places == int(k))) * 0.5 for k in ks]
        return torch.stack(halves, dim=-2).to(z.dtype)
