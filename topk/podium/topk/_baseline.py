"""Losses of others, averaged over the k-distribution.

Shape legend: `...` any leading dimensions, m kept scores, K values of k.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from podium.topk._gradient import wants_gradient, with_gradient
from podium.topk._selection import Ranked, rank
from podium.topk._sorter import Surrogate


@dataclass(frozen=True, kw_only=True)
class Baseline(Surrogate):
    """A loss for one k, and so for a k-distribution the mean under it: sum_k P_K(k) loss_k."""

    @abstractmethod
    def losses_by_k(self, ranked: Ranked, ks: tuple[int, ...], *, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return the loss for every k, (..., K), and its derivative by the ranked scores, (..., K, m)."""

    def sample_losses(
        self, logits: Tensor, labels: Tensor, *, m: int, ks: tuple[float, ...], weights: Tensor
    ) -> Tensor:
        """Return sum_k P_K(k) loss_k; see `Surrogate.sample_losses`."""
        wanted = wants_gradient(logits)
        with torch.no_grad():
            ranked = rank(logits, labels, m)
            by_k, slopes = self.losses_by_k(ranked, tuple(int(k) for k in ks), gradient=wanted)
            # A score that is no number must not hide behind an order statistic.
            losses = (weights * by_k).sum(-1) + 0 * ranked.scores.sum(-1)
            if slopes is None:
                return losses
            gradient = ranked.sparing((weights.unsqueeze(-1) * slopes).sum(-2))
        return with_gradient(logits, losses, gradient, ranked.classes)
