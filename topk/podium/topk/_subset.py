"""Subset: the label's probability of being in a random k-subset drawn by its scores.

Vivier-Ardisson, Sander, Parmentier and Blondel, "Differentiable Knapsack and Top-k Operators via Dynamic Programming"
(arXiv 2601.21775), with entropy as regulariser: P(S) ~ exp(sum of theta over S). With e_j the elementary symmetric
polynomials of exp(theta) over the other classes,

    log c_k = -softplus(log e_k - log e_{k-1} - theta_y),

which for k = 1 is the logarithm of the softmax. Berrada, Zisserman and Kumar (ICLR 2018) train with the same quantity.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from podium.topk._sorter import LogDomainSorter, require_positive

# Stands for log 0 and stays finite through every sum, where a true infinity would give NaN gradients.
_LOG_ZERO = -1e30


@dataclass(frozen=True, kw_only=True)
class Subset(LogDomainSorter):
    """Top-k by inclusion probability; exact softmax at k = 1, one temperature for every k.

    Attributes:
        temperature: Above 0; smaller is harder.

    Raises:
        ValueError: If the temperature is not a finite number above 0.
    """

    exact_top1: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the temperature."""
        require_positive("temperature", self.temperature)

    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Compare k-subsets with and without the label; see `Sorter.label_topk_probability`."""
        theta = scores / self.temperature
        theta = theta - theta.detach().amax(-1, keepdim=True)
        label = labels.unsqueeze(-1)
        log_e = _log_symmetric_polynomials(theta.scatter(-1, label, _LOG_ZERO), max(ks))
        margins = [log_e[..., k] - log_e[..., k - 1] for k in ks]
        return -F.softplus(torch.stack(margins, dim=-1) - theta.gather(-1, label))


def _log_symmetric_polynomials(theta: Tensor, degree: int) -> Tensor:
    """Return log e_0..log e_degree of exp(theta), (..., degree + 1).

    They are the coefficients of the product of all (1 + exp(theta_i) z). Multiplied as a balanced tree it has log2(m)
    steps where the recursion over classes has m.
    """
    polynomials = torch.stack([torch.zeros_like(theta), theta], dim=-1)
    while polynomials.shape[-2] > 1:
        if polynomials.shape[-2] % 2:
            one = F.pad(
                polynomials.new_zeros(*polynomials.shape[:-2], 1, 1), (0, polynomials.shape[-1] - 1), value=_LOG_ZERO
            )
            polynomials = torch.cat([polynomials, one], dim=-2)
        polynomials = _log_product(polynomials[..., 0::2, :], polynomials[..., 1::2, :], degree)
    product = polynomials.squeeze(-2)
    return F.pad(product, (0, degree + 1 - product.shape[-1]), value=_LOG_ZERO)


def _log_product(left: Tensor, right: Tensor, degree: int) -> Tensor:
    """Multiply polynomials given by the logarithms of their coefficients, cut off above `degree`."""
    size = left.shape[-1]
    result = min(2 * size - 1, degree + 1)
    # Row i holds `right` moved up by i places, so that coefficient j gathers left_i right_{j-i} down its column.
    moved = [F.pad(right, (i, result - size - i), value=_LOG_ZERO) for i in range(min(size, result))]
    terms = left[..., : len(moved), None] + torch.stack(moved, dim=-2)
    return terms.logsumexp(-2)
