"""Softmax: the top-1 baseline every other sorter is measured against."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from podium.topk._sorter import LogDomainSorter


@dataclass(frozen=True, kw_only=True)
class Softmax(LogDomainSorter):
    """No sorting at all: c_1 is the softmax over all n scores, so the loss is ordinary cross entropy.

    It knows k = 1 only, and the loss ignores m for it.
    """

    exact_top1: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    uses_all_scores: ClassVar[bool] = True
    largest_k: ClassVar[int | None] = 1

    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Return log softmax at the label, (..., 1)."""
        self.check_ks(ks)
        return scores.log_softmax(-1).gather(-1, labels.unsqueeze(-1))
