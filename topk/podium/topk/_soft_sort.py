"""SoftSort: a softmax per rank over the distances to the sorted scores."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from podium.topk._card import Card
from podium.topk._rows import RowSorter


@dataclass(frozen=True, kw_only=True)
class SoftSort(RowSorter):
    """SoftSort (Prillo and Eisenschlos, ICML 2020, with the absolute difference)."""

    card: ClassVar[Card] = Card(
        summary="A softmax for every rank, over the distances of the scores to the score that has it.",
        citation="Prillo, Eisenschlos: SoftSort: A Continuous Relaxation for the argsort Operator, ICML 2020",
        cost="O(m k).",
        caveats=(
            "Not doubly stochastic: a leading label's mass exceeds 1 and is capped, so that leaders get no gradient.",
            "When all scores tie, as with a head of zeros, its gradient is zero: put some weight on k = 1.",
        ),
    )

    def row_logits(self, scores: Tensor, ranks: int) -> Tensor:
        """Return -|s_r - s_j|; see `RowSorter.row_logits`."""
        return (scores[..., :ranks].unsqueeze(-1) - scores.unsqueeze(-2)).abs().neg_()

    def row_pull(self, scores: Tensor, upstream: Tensor) -> Tensor:
        """Pull a gradient back through `row_logits`; see `RowSorter.row_pull`."""
        ranks = upstream.shape[-2]
        signed = upstream * (scores[..., :ranks].unsqueeze(-1) - scores.unsqueeze(-2)).sign()
        pulled = signed.sum(-2)
        pulled[..., :ranks] -= signed.sum(-1)
        return pulled
