"""Sparse top-k: memberships that reach zero and one exactly.

Sander, Puigcerver, Djolonga, Peyre and Blondel, "Fast, Differentiable and Sparse Top-k: a Convex Analysis Perspective",
ICML 2023 (arXiv 2302.01425): the p-norm regularised maximum of <w, x> over {0 <= w <= 1, sum w = k}. Its solution is
w_i = clip((x_i - t) / lambda, 0, 1)^(1 / (p - 1)).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from podium.topk._card import Card, parameter
from podium.topk._sorter import FLOOR, floored_log
from podium.topk._threshold import Membership, ThresholdSorter

_STEPS = 14


@dataclass(frozen=True, kw_only=True)
class Sparse(ThresholdSorter):
    """Sparse top-k; p = 2 is the Euclidean projection, p = 4/3 smooth, and the paper's default."""

    card: ClassVar[Card] = Card(
        summary="Regularised top-k whose memberships are exactly zero and one away from the threshold.",
        citation="Sander, Puigcerver, Djolonga, Peyre, Blondel: Fast, Differentiable and Sparse Top-k: a Convex "
        "Analysis Perspective, ICML 2023",
        cost="O(m), times fourteen Newton steps for each k.",
        caveats=(
            "A hopeless label has membership zero and no gradient: put weight on k = 1, or raise regularization.",
        ),
    )

    p: float = parameter(4 / 3, "The norm of the regulariser: 2, 4/3, or anything between.", above=1, at_most=2)
    regularization: float = parameter(
        8.0, "The strength lambda: the width of the band between zero and one.", at_least=1e-6, at_most=1e6
    )

    @property
    def scale(self) -> float:
        """Return the regularization."""
        return self.regularization

    @property
    def _power(self) -> float:
        return 1 / (self.p - 1)

    def thresholds(self, z: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Solve sum_i clip(z_i - t, 0, 1)^power = k; see `ThresholdSorter.thresholds`."""
        return torch.cat([self._threshold(z, k) for k in ks], dim=-1)

    def membership(self, z: Tensor) -> Membership:
        """Return clip(z, 0, 1)^power; see `ThresholdSorter.membership`."""
        c = z.clamp(0, 1) ** self._power
        return Membership(c, floored_log(c), self._density(z) / c.clamp(min=FLOOR))

    def shares(self, z: Tensor, places: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return f(z_j) / sum_i f(z_i), zero where nobody moves the threshold; see `ThresholdSorter.shares`."""
        density = self._density(z)
        total = density.sum(-1, keepdim=True)
        return torch.where(total > 0, density / total, 0.0)

    def _threshold(self, z: Tensor, k: float) -> Tensor:
        last_in, first_out, whole = math.ceil(k) - 1, math.floor(k), math.floor(k)
        # The top k have z - t of at most 1 at `low`, the others of at least 0 at `high`. Where the two have crossed,
        # memberships are zero and one, and anything between is a threshold.
        low, high = z[..., last_in : last_in + 1] - 1, z[..., first_out : first_out + 1]
        t = (low + high) / 2
        for _ in range(_STEPS):
            inside = (z - t).clamp(0, 1)
            member = inside**self._power
            # Excess outside the top k, less what is missing in it: no digit is lost to a sum of ones.
            surplus = member[..., whole:].sum(-1, keepdim=True) - (1 - member[..., :whole]).sum(-1, keepdim=True)
            surplus = surplus - (k - whole)
            low, high = torch.where(surplus >= 0, t, low), torch.where(surplus <= 0, t, high)
            newton = t + surplus / self._slope(inside, member).sum(-1, keepdim=True)
            t = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        return t

    def _density(self, z: Tensor) -> Tensor:
        inside = z.clamp(0, 1)
        return self._slope(inside, inside**self._power)

    def _slope(self, inside: Tensor, member: Tensor) -> Tensor:
        return torch.where((inside > 0) & (inside < 1), self._power * member / inside, 0.0)
