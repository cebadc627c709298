"""SoftSort: a softmax per rank over the distances to the sorted scores."""

from dataclasses import dataclass

from torch import Tensor

from podium.topk._rows import RowSorter


@dataclass(frozen=True, kw_only=True)
class SoftSort(RowSorter):
    """SoftSort (Prillo and Eisenschlos, ICML 2020, with the absolute difference)."""

    def _row_logits(self, scores: Tensor, k: int) -> Tensor:
        """Return -|s_[r] - s_j| / temperature for r = 1..k, s_[r] the r-th largest score."""
        strongest = scores.topk(k, dim=-1).values
        return (strongest.unsqueeze(-1) - scores.unsqueeze(-2)).abs() / -self.temperature
