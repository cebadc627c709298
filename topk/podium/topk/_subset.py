"""Subset: the label's probability of being in a random k-subset drawn by its scores.

Vivier-Ardisson, Sander, Parmentier and Blondel, "Differentiable Knapsack and Top-k Operators via Dynamic Programming"
(arXiv 2601.21775), with entropy as regulariser: P(S) ~ exp(sum of theta over S). With e_j the elementary symmetric
polynomials of exp(theta) over the other classes,

    log c_k = -softplus(log e_k - log e_{k-1} - theta_y),

which for k = 1 is the logarithm of the softmax. Berrada, Zisserman and Kumar (ICLR 2018) train with the same quantity.

Shape legend: `...` any leading dimensions, r = m - 1 rivals, K values of k.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from podium.topk._card import Card, parameter
from podium.topk._sorter import ClosedFormSorter, Terms

# Stands for log 0 and stays finite through every sum, where a true infinity would give NaN.
_LOG_ZERO = -1e30


@dataclass(frozen=True, kw_only=True)
class Subset(ClosedFormSorter):
    """Top-k by inclusion probability; exact softmax at k = 1, one temperature for every k."""

    card: ClassVar[Card] = Card(
        summary="The distribution over subsets of k classes: softmax, generalised to every k.",
        citation="Vivier-Ardisson, Sander, Parmentier, Blondel: Differentiable Knapsack and Top-k Operators via "
        "Dynamic Programming, 2026",
        cost="O(m k).",
    )
    exact_top1: ClassVar[bool] = True

    temperature: float = parameter(1.0, "The softness.", at_least=1e-6, at_most=1e6)

    def terms(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        """Compare k-subsets with and without the label; see `ClosedFormSorter.terms`."""
        terms = subset_terms(scores / self.temperature, tuple(int(k) for k in ks), gradient=gradient)
        return terms if terms.gradient is None else terms._replace(gradient=terms.gradient / self.temperature)


def subset_terms(theta: Tensor, ks: tuple[int, ...], *, gradient: bool) -> Terms:
    """Return the inclusion probability of the label in k-subsets; `theta` is ranked, (..., m)."""
    theta = theta - theta.amax(-1, keepdim=True)
    label, rivals = theta[..., :1], theta[..., 1:]
    tables = _symmetric_polynomials(rivals, ks[-1], both_ways=gradient)
    log_e = [table[..., -1] for table in tables.up_to]
    margin = torch.stack([log_e[k] - log_e[k - 1] for k in ks], dim=-1) - label
    log_c = -F.softplus(margin)
    if not gradient:
        return Terms(log_c.exp(), log_c, None)
    miss = margin.sigmoid()
    pull = torch.stack([_inclusion(rivals, tables, k) - _inclusion(rivals, tables, k - 1) for k in ks], dim=-2)
    slope = torch.cat([miss.unsqueeze(-1), -miss.unsqueeze(-1) * pull], dim=-1)
    return Terms(log_c.exp(), log_c, slope)


class _Tables(NamedTuple):
    """log e_0, log e_1, ... of growing sets of rivals.

    Attributes:
        up_to: Of rivals 1..i at place i = 0..r; (..., r + 1) each.
        beyond: Of the rivals after i, likewise at place i; empty if it was not asked for.
    """

    up_to: list[Tensor]
    beyond: list[Tensor]


def _symmetric_polynomials(rivals: Tensor, degree: int, *, both_ways: bool) -> _Tables:
    # e_j(1..i) = e_j(1..i-1) + exp(theta_i) e_{j-1}(1..i-1): for each degree one running sum over the rivals.
    theta = torch.stack([rivals, rivals.flip(-1)]) if both_ways else rivals.unsqueeze(0)
    tables = [theta.new_zeros(*theta.shape[:-1], theta.shape[-1] + 1)]
    for _ in range(degree):
        tables.append(F.pad((theta + tables[-1][..., :-1]).logcumsumexp(-1), (1, 0), value=_LOG_ZERO))
    up_to = [table[0] for table in tables]
    return _Tables(up_to, [table[1].flip(-1) for table in tables] if both_ways else [])


def _inclusion(rivals: Tensor, tables: _Tables, k: int) -> Tensor:
    """Return the probability of each rival being in a k-subset of the rivals, (..., r)."""
    if k == 0:
        return torch.zeros_like(rivals)
    # The k - 1 others come from before it and from behind it.
    others = torch.stack(
        [tables.up_to[before][..., :-1] + tables.beyond[k - 1 - before][..., 1:] for before in range(k)]
    )
    # Rounding of huge scores must not make a probability of more than one of it.
    return (rivals + others.logsumexp(0) - tables.up_to[k][..., -1:]).clamp_(max=0).exp_()
