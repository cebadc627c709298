"""What NeuralSort and SoftSort share: one softmax over the scores for every rank."""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from podium.topk._sorter import LogDomainSorter, require_positive


@dataclass(frozen=True, kw_only=True)
class RowSorter(LogDomainSorter):
    """A sorter whose relaxed permutation matrix has a softmax in every rank's row.

    Rows sum to one but columns do not: the mass of one class over the first k ranks reaches 1.3, where more score means
    less mass and the gradient would push the label down. Capped at one, such a label is certain and is left alone.

    Attributes:
        temperature: Above 0; smaller is harder.
        as_published: Leave the mass uncapped, as the authors' package does.

    Raises:
        ValueError: If the temperature is not a finite number above 0.
    """

    temperature: float = 1.0
    as_published: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Check the temperature."""
        require_positive("temperature", self.temperature)

    @abstractmethod
    def _row_logits(self, scores: Tensor, k: int) -> Tensor:
        """Return the logits of ranks 1..k, (..., k, m)."""

    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Sum the label's column over the first ranks; see `Sorter.label_topk_probability`."""
        rows = self._row_logits(scores, max(ks)).log_softmax(-1)
        column = labels[..., None, None].expand(*labels.shape, max(ks), 1)
        log_mass = rows.gather(-1, column).squeeze(-1).logcumsumexp(-1)
        log_c = torch.stack([log_mass[..., k - 1] for k in ks], dim=-1)
        return log_c if self.as_published else log_c.clamp(max=0)
