"""SinkhornSort: entropic optimal transport of the scores to ranks.

Cuturi, Teboul and Vert, "Differentiable Ranking and Sorting using Optimal Transport", NeurIPS 2019. Scores are
squashed into (0, 1), and each goes with mass 1 / m to the targets of the first k ranks and to one target for all other
ranks; the label's share at the first k targets is c_k. Sinkhorn's iterations run in the log domain; the derivative
comes from the optimality conditions, a system of k equations, so that no iteration is kept.

Shape legend: `...` any leading dimensions, m scores, T = k + 1 targets, K values of k.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from podium.topk._card import Card, parameter
from podium.topk._sorter import ClosedFormSorter, Terms, linear_terms

# Of the spread of the scores: ties must not be torn apart without bound.
_LEAST_VARIANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class SinkhornSort(ClosedFormSorter):
    """SinkhornSort (Cuturi et al. 2019) with the targets that the top k need."""

    card: ClassVar[Card] = Card(
        summary="Entropic optimal transport of the standardised scores to the first ranks.",
        citation="Cuturi, Teboul, Vert: Differentiable Ranking and Sorting using Optimal Transport, NeurIPS 2019",
        cost="O(iterations m k): the dearest.",
        caveats=(
            "It standardises the kept scores, so that confidence does not sharpen it.",
            "With a regularization below 0.02 raise the iterations; they converge ever more slowly.",
        ),
    )

    regularization: float = parameter(
        0.1, "The entropic regularization epsilon; costs are at most 1.", at_least=1e-4, at_most=1e6
    )
    iterations: int = parameter(30, "How often Sinkhorn rescales.", at_least=1, at_most=100000)

    def terms(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        """Solve the transport; see `ClosedFormSorter.terms`."""
        m, whole = scores.shape[-1], tuple(int(k) for k in ks)
        deviation = scores - scores.mean(-1, keepdim=True)
        spread = (deviation.square().mean(-1, keepdim=True) + _LEAST_VARIANCE).sqrt()
        squashed = (deviation / spread).sigmoid()
        distance = squashed.unsqueeze(-1) - self._targets(m, whole[-1], scores)
        log_plan = self._plan(-distance.square() / self.regularization, m, whole[-1])
        plan = log_plan.exp()
        c = plan[..., 0, :].cumsum(-1)[..., [k - 1 for k in whole]] * m
        if not gradient:
            return linear_terms(c.clamp(max=1), None)
        by_cost = torch.stack([_pull(plan, k) for k in whole], dim=-3) * m / self.regularization
        by_squashed = (by_cost * -2 * distance.unsqueeze(-3)).sum(-1)
        by_standard = by_squashed * (squashed * (1 - squashed)).unsqueeze(-2)
        standard = (deviation / spread).unsqueeze(-2)
        along = (by_standard * standard).mean(-1, keepdim=True)
        slope = (by_standard - by_standard.mean(-1, keepdim=True) - standard * along) / spread.unsqueeze(-2)
        return linear_terms(c.clamp(max=1), slope)

    @staticmethod
    def _targets(m: int, k: int, like: Tensor) -> Tensor:
        """Return where ranks 1..k of m evenly spaced ones lie, and the middle of the others, (T,)."""
        ranks = torch.linspace(1, 0, m, dtype=like.dtype, device=like.device)
        return torch.cat([ranks[:k], ranks[k:].mean(0, keepdim=True)])

    def _plan(self, log_kernel: Tensor, m: int, k: int) -> Tensor:
        """Return the log of the transport plan, (..., m, T)."""
        log_mass = log_kernel.new_full((k + 1,), 1.0 / m).scatter(
            0, torch.tensor([k], device=log_kernel.device), 1 - k / m
        )
        log_mass, log_m = log_mass.log(), log_kernel.new_full((), float(m)).log()
        # The last rescaling is that of the scores: each has exactly its mass, and no c_k is above one.
        left = torch.zeros_like(log_kernel[..., :1])
        for _ in range(self.iterations):
            right = log_mass - (log_kernel + left).logsumexp(-2, keepdim=True)
            left = -(log_kernel + right).logsumexp(-1, keepdim=True) - log_m
        return log_kernel + left + right


def _pull(plan: Tensor, k: int) -> Tensor:
    """Return the derivative of sum of plan[0, :k] by minus the cost / regularization, (..., m, T).

    A change of cost changes both potentials so that all marginals stay; the adjoint of that linear system, reduced to
    the targets, is solved here. The last target's potential is arbitrary and kept at zero.
    """
    wanted = torch.zeros_like(plan)
    wanted[..., 0, :k] = plan[..., 0, :k]
    row_mass, column_mass = plan.sum(-1, keepdim=True), plan.sum(-2)
    row, column = wanted.sum(-1, keepdim=True), wanted.sum(-2)
    share = plan / row_mass
    system = torch.diag_embed(column_mass) - plan.mT @ share
    right_side = column - (share * row).sum(-2)
    # Without its check for singular systems, which would wait for the device. One is singular where a target has all of
    # its scores for certain; nothing moves there.
    inner = torch.linalg.solve_ex(system[..., :-1, :-1], right_side[..., :-1].unsqueeze(-1)).result.squeeze(-1)
    inner = inner.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    multipliers = torch.nn.functional.pad(inner, (0, 1)).unsqueeze(-2)
    rows = (row - (plan * multipliers).sum(-1, keepdim=True)) / row_mass
    return wanted - plan * (rows + multipliers)
