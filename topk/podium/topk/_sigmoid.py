"""Sigmoid k-hot: logistic memberships that sum to k."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from podium.topk._card import Card, parameter
from podium.topk._threshold import SmoothThresholdSorter

# From any scores, seven reach the last digit of float64.
_NEWTON_STEPS = 7


@dataclass(frozen=True, kw_only=True)
class LogisticThreshold(SmoothThresholdSorter):
    """A threshold sorter with the logistic distribution function."""

    def thresholds(self, z: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Solve sum_i sigmoid(z_i - t) = k by Newton; see `ThresholdSorter.thresholds`.

        Written as log(mass below the top k) = log(mass missing in the top k), both sides are nearly straight lines
        in t wherever the scores lie, and no digit is lost to a sum of ones.
        """
        return torch.stack([self._threshold(z, k) for k in ks], dim=-1)

    def _threshold(self, z: Tensor, k: float) -> Tensor:
        whole = int(k)
        top, rest = z[..., :whole], z[..., whole:]
        t = (top[..., -1:] + rest[..., :1]) / 2
        for _ in range(_NEWTON_STEPS):
            excess, missing = rest - t, t - top
            log_excess, log_missing = F.logsigmoid(excess), F.logsigmoid(missing)
            above, below = log_excess.logsumexp(-1, keepdim=True), log_missing.logsumexp(-1, keepdim=True)
            slope = ((log_excess - above).exp() * (-excess).sigmoid()).sum(-1, keepdim=True)
            target, weight = _plus(below, k - whole)
            slope = slope + weight * ((log_missing - below).exp() * (-missing).sigmoid()).sum(-1, keepdim=True)
            t = t + (above - target) / slope
        return t.squeeze(-1)

    def log_probability(self, z: Tensor) -> Tensor:
        """Return log sigmoid(z)."""
        return F.logsigmoid(z)

    def hazard(self, z: Tensor) -> Tensor:
        """Return sigmoid(-z)."""
        return (-z).sigmoid()

    def log_density(self, z: Tensor) -> Tensor:
        """Return log sigmoid(z) + log sigmoid(-z)."""
        return F.logsigmoid(z) + F.logsigmoid(-z)


def _plus(log_value: Tensor, fraction: float) -> tuple[Tensor, Tensor | float]:
    """Return log(value + fraction) and the share of `value` in that sum."""
    if fraction == 0:
        return log_value, 1.0
    total = torch.logaddexp(log_value, torch.full_like(log_value, fraction).log())
    return total, (log_value - total).exp()


@dataclass(frozen=True, kw_only=True)
class Sigmoid(LogisticThreshold):
    """Sigmoid k-hot: c_k = sigmoid((x_y - t) / temperature), all classes together k."""

    card: ClassVar[Card] = Card(
        summary="Logistic membership with a threshold that makes all classes share k places.",
        citation="Differentiable Top-k: From One-Hot to k-Hot, OpenReview, 2025",
        cost="O(m), times seven Newton steps for each k.",
    )

    temperature: float = parameter(1.0, "The softness.", at_least=1e-6, at_most=1e6)

    @property
    def scale(self) -> float:
        """Return the temperature."""
        return self.temperature
