"""The smooth top-k SVM.

Berrada, Zisserman and Kumar, "Smooth Loss Functions for Deep Top-k Classification", ICLR 2018 (arXiv 1802.07595). With
u = x / (k tau) and c_k the subset sorter's probability of the scores u, the label's lowered by alpha / tau, the loss is
-tau log c_k.

Shape legend: `...` any leading dimensions, m kept scores, K values of k.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from podium.topk._baseline import Baseline
from podium.topk._card import Card, parameter
from podium.topk._selection import Ranked
from podium.topk._subset import subset_terms


@dataclass(frozen=True, kw_only=True)
class SmoothSVM(Baseline):
    """Smooth top-k SVM (Berrada et al. 2018)."""

    card: ClassVar[Card] = Card(
        summary="The smooth top-k support vector machine: a soft margin between the label and the k-th rival.",
        citation="Berrada, Zisserman, Kumar: Smooth Loss Functions for Deep Top-k Classification, ICLR 2018",
        cost="O(m k) for each k.",
        caveats=("The paper keeps all scores: set m to the number of classes to repeat it.",),
    )

    margin: float = parameter(1.0, "The margin alpha, in units of the scores.", at_least=0, at_most=1e6)
    temperature: float = parameter(1.0, "The softness tau.", at_least=1e-6, at_most=1e6)

    def losses_by_k(self, ranked: Ranked, ks: tuple[int, ...], *, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return -tau log c_k; see `Baseline.losses_by_k`."""
        losses, slopes = [], []
        for k in ks:
            theta = ranked.scores / (k * self.temperature)
            theta = torch.cat([theta[..., :1] - self.margin / self.temperature, theta[..., 1:]], dim=-1)
            terms = subset_terms(theta, (k,), gradient=gradient)
            losses.append(-self.temperature * terms.log_probability)
            if terms.gradient is not None:
                slopes.append(-terms.gradient / k)
        return torch.cat(losses, dim=-1), torch.cat(slopes, dim=-2) if gradient else None
