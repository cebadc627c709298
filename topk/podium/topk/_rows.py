"""What NeuralSort and SoftSort share: one softmax over the scores for every rank.

Shape legend: `...` any leading dimensions, m scores in falling order, R ranks.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from podium.topk._card import parameter
from podium.topk._selection import places_by_score
from podium.topk._sorter import ClosedFormSorter, Terms


@dataclass(frozen=True, kw_only=True)
class RowSorter(ClosedFormSorter):
    """A sorter whose relaxed permutation matrix has a softmax in every rank's row.

    Rows sum to one but columns do not: the mass of one class over the first k ranks reaches 1.3, where more score means
    less mass and the gradient would push the label down. Capped at one, such a label is certain and is left alone.
    """

    temperature: float = parameter(2.0, "The softness.", at_least=1e-6, at_most=1e6)

    @abstractmethod
    def row_logits(self, scores: Tensor, ranks: int) -> Tensor:
        """Return the logits of ranks 1, 2, ..., (..., R, m), at temperature 1, up to a constant a row.

        `scores` are in falling order.
        """

    @abstractmethod
    def row_pull(self, scores: Tensor, upstream: Tensor) -> Tensor:
        """Return the gradient by the scores, (..., m), of a gradient by the rows' logits, (..., R, m).

        `upstream` sums to zero in every row.
        """

    def terms(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        """Sum the label's column over the first ranks; see `ClosedFormSorter.terms`."""
        log_mass, slope = self.column(scores, tuple(int(k) for k in ks), gradient=gradient)
        log_c = log_mass.clamp(max=0)
        if slope is not None:
            slope.masked_fill_((log_mass > 0).unsqueeze(-1), 0.0)
        return Terms(log_c.exp(), log_c, slope)

    def column(self, scores: Tensor, ks: tuple[int, ...], *, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return the logarithm of the label's mass in the first k ranks, (..., K), and its derivative, (..., K, m).

        `scores` are ranked; the mass may be above one.
        """
        places = places_by_score(scores)
        ordered = torch.empty_like(scores).scatter(-1, places, scores / self.temperature)
        rows = self.row_logits(ordered, ks[-1]).log_softmax(-1)
        label = places[..., :1].unsqueeze(-2).expand(*rows.shape[:-1], 1)
        log_entries = rows.gather(-1, label)
        log_entry = log_entries.squeeze(-1)
        log_masses = [log_entry[..., :k].logsumexp(-1, keepdim=True) for k in ks]
        log_mass = torch.cat(log_masses, dim=-1)
        if not gradient:
            return log_mass, None
        # Minus d log P_ry / d row logits.
        upstream = rows.exp().scatter_add_(-1, label, torch.full_like(log_entries, -1.0))
        slopes = []
        for k, mass in zip(ks, log_masses, strict=True):
            # How much of the mass in the first k ranks is in each of them.
            share = (log_entry[..., :k] - mass).exp().div_(-self.temperature)
            pulled = self.row_pull(ordered, share.unsqueeze(-1) * upstream[..., :k, :])
            slopes.append(pulled.gather(-1, places))
        return log_mass, torch.stack(slopes, dim=-2)
