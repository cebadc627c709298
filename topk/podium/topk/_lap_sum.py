"""LapSum: memberships by the Laplace distribution, whose threshold has a closed form.

Struski, Bednarczyk, Podolak and Tabor, "One Method to Differentiate Them All: Ranking, Sorting and Top-k Selection",
ICML 2025 (arXiv 2503.06242).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from podium.topk._card import Card, parameter
from podium.topk._threshold import SmoothThresholdSorter


@dataclass(frozen=True, kw_only=True)
class LapSum(SmoothThresholdSorter):
    """LapSum top-k: c_k = Laplace((x_y - t) / temperature), all classes together k."""

    card: ClassVar[Card] = Card(
        summary="Laplace membership with a closed-form threshold that makes all classes share k places.",
        citation="Struski, Bednarczyk, Podolak, Tabor: One Method to Differentiate Them All: Ranking, Sorting and "
        "Top-k Selection, ICML 2025",
        cost="O(m), two running sums.",
    )

    temperature: float = parameter(1.0, "The softness, alpha in the paper.", at_least=1e-6, at_most=1e6)

    @property
    def scale(self) -> float:
        """Return the temperature."""
        return self.temperature

    def thresholds(self, z: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Find the gap between scores that holds t, and solve a quadratic there; see `ThresholdSorter.thresholds`.

        With p scores above t, a = sum exp(-z) over those and b = sum exp(z) over the others, the memberships sum to
        p - a e^t / 2 + b e^-t / 2. All in logarithms, where no score is too far away.
        """
        above = F.pad((-z).logcumsumexp(-1), (1, 0), value=-torch.inf)
        below = F.pad(z.flip(-1).logcumsumexp(-1).flip(-1), (0, 1), value=-torch.inf)
        order = torch.arange(z.shape[-1], device=z.device)
        # The sum of memberships were t at score i.
        at_score = order + 0.5 - (above[..., :-1] + z).exp() / 2 + (below[..., 1:] - z).exp() / 2
        return torch.stack([_threshold(above, below, at_score, k) for k in ks], dim=-1)

    def log_probability(self, z: Tensor) -> Tensor:
        """Return z - log 2 below zero, log(1 - e^-z / 2) above."""
        return torch.where(z < 0, z - math.log(2), torch.log1p(-(-z.abs()).exp() / 2))

    def hazard(self, z: Tensor) -> Tensor:
        """Return 1 below zero, e^-z / (2 - e^-z) above."""
        tail = (-z.abs()).exp()
        return torch.where(z < 0, 1.0, tail / (2 - tail))

    def log_density(self, z: Tensor) -> Tensor:
        """Return -|z|."""
        return -z.abs()


def _threshold(above: Tensor, below: Tensor, at_score: Tensor, k: float) -> Tensor:
    count = (at_score < k).sum(-1, keepdim=True)
    log_a, log_b = above.gather(-1, count).squeeze(-1), below.gather(-1, count).squeeze(-1)
    surplus = count.squeeze(-1) - k
    # The root of a x^2 - 2 surplus x - b, in the form that does not cancel.
    log_surplus = surplus.abs().to(log_a.dtype).log()
    log_root = torch.logaddexp(log_surplus, torch.logaddexp(2 * log_surplus, log_a + log_b) / 2)
    return torch.where(surplus >= 0, log_root - log_a, log_b - log_root)
