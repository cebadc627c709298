"""Differentiable sorting networks: the label's own column through relaxed comparators.

Petersen et al., ICML 2021 and ICML 2022. A comparator on lanes (a, b) with d = v_b - v_a and swap
probability q = f(-d) replaces both the values and every column of the permutation matrix by

    u_a' = u_a + q (u_b - u_a),    u_b' = u_b - q (u_b - u_a).

Only the label's column is asked for, so values and that one column travel together: O(m) per layer instead of O(m^2).

Shape legend: M lanes, B samples, C comparators of all layers, R ranks; the axis of size 2 holds (value, label mass).
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from podium.topk._distributions import Distribution, SwapLaw, swap_law
from podium.topk._schedule import Layer, Schedule, compile_schedule, prune
from podium.topk._sorter import Sorter, require_positive


@dataclass(frozen=True, kw_only=True)
class SortingNetwork(Sorter):
    """A sorting network with relaxed comparators; a family declares its `layers`.

    Its answer depends on the lane each score starts in; the loss hands the scores over weakest first.

    Attributes:
        steepness: Inverse temperature of every comparator, above 0; larger is harder.
        distribution: The comparator law, a `Distribution` or its name.
        art_lambda: Exponent of logistic_phi, in [0, 1); other laws ignore it.
        as_published: Repeat the authors' package to the digit: its rounding, and its logistic_phi with a slope at ties
            that is up to thousands of times steeper.

    Raises:
        ValueError: If a hyper-parameter is out of range or the distribution is unknown.
    """

    lane_dependent: ClassVar[bool] = True

    steepness: float = 2.0
    distribution: Distribution | str = Distribution.CAUCHY
    art_lambda: float = 0.25
    as_published: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Check the hyper-parameters and accept the distribution by name."""
        require_positive("steepness", self.steepness)
        if not 0 <= self.art_lambda < 1:
            raise ValueError(f"art_lambda is {self.art_lambda}; give a number in [0, 1).")
        if self.distribution not in list(Distribution):
            names = ", ".join(Distribution)
            raise ValueError(f"distribution is {self.distribution!r}; choose one of {names}.")
        object.__setattr__(self, "distribution", Distribution(self.distribution))

    @staticmethod
    @abstractmethod
    def layers(m: int, k: int) -> tuple[Layer, ...]:
        """Return the comparators on m lanes that bring the k largest to the last k lanes, largest last."""

    def label_topk_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Propagate the label's column; see `Sorter.label_topk_probability`."""
        schedule = _schedule(type(self), scores.shape[-1], max(ks), scores.device)
        name = Distribution(self.distribution)
        law = swap_law(name, self.steepness, self.art_lambda, as_published=self.as_published)
        mass_RB = _LabelRankMass.apply(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1), schedule, law)
        # Rounding may carry the sum of a whole row an ulp above one.
        c_RB = mass_RB.cumsum(0).clamp(max=1)
        c_KB = torch.stack([c_RB[k - 1] for k in ks])
        return c_KB.t().reshape(*labels.shape, len(ks))


@lru_cache(maxsize=64)
def _schedule(family: type[SortingNetwork], m: int, k: int, device: torch.device) -> Schedule:
    return compile_schedule(prune(family.layers(m, k), m, k), m, k, device)


class _LabelRankMass(torch.autograd.Function):
    """Rank distribution of the label, with a backward written by hand: half the time of autograd's tape."""

    @staticmethod
    def forward(ctx: Any, scores_BM: Tensor, labels_B: Tensor, schedule: Schedule, law: SwapLaw) -> Tensor:
        state_M2B = _initial_state(scores_BM, labels_B)
        gaps_C2B = state_M2B.new_empty(sum(schedule.sizes), *state_M2B.shape[1:])
        swaps = []
        for size, enter, gap_c2B in zip(
            schedule.sizes, schedule.enter, gaps_C2B.split_with_sizes(schedule.sizes), strict=True
        ):
            state_M2B = state_M2B.index_select(0, enter)
            low_c2B, high_c2B = state_M2B[:size], state_M2B[size : 2 * size]
            torch.sub(high_c2B, low_c2B, out=gap_c2B)
            swap_c1B = law.swap_probability(gap_c2B[:, :1])
            pair_2c2B = state_M2B[: 2 * size].view(2, size, *state_M2B.shape[1:])
            crossed_2c2B = pair_2c2B.flip(0)
            # A weighted mean of two masses cannot turn negative by rounding, which mass plus swap times difference can.
            pair_2c2B.mul_(1 - swap_c1B).addcmul_(crossed_2c2B, swap_c1B)
            swaps.append(swap_c1B)

        ctx.save_for_backward(gaps_C2B, *swaps)
        ctx.schedule, ctx.law, ctx.state_shape = schedule, law, state_M2B.shape
        return state_M2B[:, 1].index_select(0, schedule.ranks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RB: Tensor) -> tuple[Tensor, None, None, None]:
        gaps_C2B, *swaps = ctx.saved_tensors
        schedule: Schedule = ctx.schedule
        # One pass over all comparators: d c / d d needs no layer order, only the gaps.
        pulls = (gaps_C2B * ctx.law.slope(gaps_C2B[:, :1])).split_with_sizes(schedule.sizes)
        grad_M2B = gaps_C2B.new_zeros(ctx.state_shape)
        grad_M2B[:, 1].index_copy_(0, schedule.ranks, grad_RB)
        for size, leave, swap_c1B, pull_c2B in zip(
            reversed(schedule.sizes), reversed(schedule.leave), reversed(swaps), reversed(pulls), strict=True
        ):
            low_c2B, high_c2B = grad_M2B[:size], grad_M2B[size : 2 * size]
            gap_c2B = high_c2B - low_c2B
            moved_c2B = swap_c1B * gap_c2B
            # The comparator's matrix is symmetric, so gradients mix as the state did; the values also steer the swap.
            steer_cB = (gap_c2B[:, 0] * pull_c2B[:, 0]).addcmul_(gap_c2B[:, 1], pull_c2B[:, 1])
            low_c2B += moved_c2B
            high_c2B -= moved_c2B
            low_c2B[:, 0] -= steer_cB
            high_c2B[:, 0] += steer_cB
            grad_M2B = grad_M2B.index_select(0, leave)
        return grad_M2B[:, 0].t(), None, None, None


def _initial_state(scores_BM: Tensor, labels_B: Tensor) -> Tensor:
    batch, m = scores_BM.shape
    state_M2B = scores_BM.new_zeros(m, 2, batch)
    state_M2B[:, 0] = scores_BM.t()
    state_M2B[:, 1].scatter_(0, labels_B.unsqueeze(0), 1.0)
    return state_M2B
