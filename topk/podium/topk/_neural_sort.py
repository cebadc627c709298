"""NeuralSort: a softmax per rank over linear functions of the scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from podium.topk._rows import RowSorter


@dataclass(frozen=True, kw_only=True)
class NeuralSort(RowSorter):
    """NeuralSort (Grover, Wang, Zweig and Ermon, ICLR 2019); memory O(m^2) per sample."""

    def _row_logits(self, scores: Tensor, k: int) -> Tensor:
        """Return ((m + 1 - 2 r) s_j - sum_l |s_j - s_l|) / temperature for r = 1..k."""
        m = scores.shape[-1]
        # Every row's softmax is blind to a shift, and the products below lose fewer digits near zero.
        centred = scores - scores.detach().mean(-1, keepdim=True)
        distance = (centred.unsqueeze(-1) - centred.unsqueeze(-2)).abs().sum(-1)
        slopes = torch.arange(m - 1, m - 1 - 2 * k, -2, dtype=scores.dtype, device=scores.device)
        rows = slopes.unsqueeze(-1) * centred.unsqueeze(-2) - distance.unsqueeze(-2)
        return rows / self.temperature
