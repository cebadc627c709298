"""Softmax: the top-1 baseline every other sorter is measured against."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from podium.topk._card import Card
from podium.topk._sorter import Sorter


@dataclass(frozen=True, kw_only=True)
class Softmax(Sorter):
    """No sorting at all: c_1 is the softmax over all n scores, so the loss is ordinary cross entropy.

    It knows k = 1 only, and the loss ignores m for it.
    """

    card: ClassVar[Card] = Card(
        summary="Plain softmax cross-entropy over all classes. Goes with k = {1: 1} only.",
        citation="",
        cost="O(n).",
    )
    exact_top1: ClassVar[bool] = True
    uses_all_scores: ClassVar[bool] = True
    largest_k: ClassVar[int | None] = 1

    def label_topk_probability(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return the softmax at the label, (..., 1)."""
        return self.label_topk_log_probability(scores, labels, ks).exp()

    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return log softmax at the label, (..., 1)."""
        self.check_ks(ks)
        return scores.log_softmax(-1).gather(-1, labels.unsqueeze(-1))

    def sample_losses(
        self, logits: Tensor, labels: Tensor, *, m: int, ks: tuple[float, ...], weights: Tensor
    ) -> Tensor:
        """Return torch's cross entropy over all n scores; see `Surrogate.sample_losses`."""
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1), reduction="none")
        return losses.reshape(labels.shape)
