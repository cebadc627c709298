"""NeuralSort: a softmax per rank over linear functions of the scores."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from podium.topk._card import Card
from podium.topk._rows import RowSorter


@dataclass(frozen=True, kw_only=True)
class NeuralSort(RowSorter):
    """NeuralSort (Grover, Wang, Zweig and Ermon, ICLR 2019), without its m x m matrix of differences.

    The logits of rank r = 0, 1, ... are ((m - 1 - 2 r) s_j - sum_l |s_j - s_l|) / temperature. In falling order two
    neighbours' logits differ by (2 (j - r) + 1) (s_j - s_{j+1}): one running sum serves all rows.
    """

    card: ClassVar[Card] = Card(
        summary="A softmax for every rank, over what the pairwise differences of the scores say.",
        citation="Grover, Wang, Zweig, Ermon: Stochastic Optimization of Sorting Networks via Continuous Relaxations, "
        "ICLR 2019",
        cost="O(m k).",
        caveats=(
            "Not doubly stochastic: a leading label's mass exceeds 1 and is capped, so that leaders get no gradient.",
            "Put some weight on k = 1; pure top-5 trains few samples.",
        ),
    )

    def row_logits(self, scores: Tensor, ranks: int) -> Tensor:
        """Return the logits of the first ranks; see `RowSorter.row_logits`."""
        gaps = -scores.diff(dim=-1)
        order = torch.arange(gaps.shape[-1], device=scores.device, dtype=scores.dtype)
        weighted = torch.nn.functional.pad((gaps * order).cumsum(-1), (1, 0))
        below_first = scores[..., :1] - scores
        odd = torch.arange(-1, 2 * ranks - 1, 2, device=scores.device, dtype=scores.dtype).unsqueeze(-1)
        return torch.sub(odd * below_first.unsqueeze(-2), weighted.unsqueeze(-2), alpha=2)

    def row_pull(self, scores: Tensor, upstream: Tensor) -> Tensor:
        """Pull a gradient back through `row_logits`; see `RowSorter.row_pull`."""
        ranks, m = upstream.shape[-2:]
        order = torch.arange(m, device=scores.device, dtype=scores.dtype)
        odd = torch.arange(1, 2 * ranks + 1, 2, device=scores.device, dtype=scores.dtype).unsqueeze(-1)
        # A score moves the gaps on both sides of it, and through them every row's logits from there on; the running
        # sum is minus that of the scores behind, since a whole row sums to zero.
        whole = upstream.sum(-2)
        return 2 * (order * whole + whole.cumsum(-1)) - (odd * upstream).sum(-2)
