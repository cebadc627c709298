"""Differentiable sorting networks: the label's own column through relaxed comparators.

Petersen et al., ICML 2021 and ICML 2022. A comparator on lanes (a, b) with d = v_b - v_a and swap
probability q = f(-d) replaces both the values and every column of the permutation matrix by

    u_a' = u_a + q (u_b - u_a),    u_b' = u_b - q (u_b - u_a).

Only the label's column is asked for, so values and that one column travel together: O(m) per layer instead of O(m^2).

Shape legend: B samples, M lanes, C comparators of all layers (c of one), R ranks, K values of k; the axis of size 2
holds (value, label mass).
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from podium.topk._card import parameter
from podium.topk._distributions import Distribution, SwapLaw, swap_law
from podium.topk._eager import is_traced
from podium.topk._schedule import Layer, Schedule, compile_schedule, prune
from podium.topk._selection import places_by_score
from podium.topk._sorter import ClosedFormSorter, Terms, linear_terms

JUMPS = "c_k jumps where the label passes a rival, since it then starts in another lane."

# From this many numbers on torch calls its other threads, which costs more than a layer of comparators.
_SMALL = 32_768


@dataclass(frozen=True, kw_only=True)
class SortingNetwork(ClosedFormSorter):
    """A sorting network with relaxed comparators; a family declares its `layers`.

    A relaxed network's answer depends on the lanes in which scores start. Here they start in order, the weakest in the
    first lane: the network then meets every score where it belongs, and nothing betrays the label.
    """

    steepness: float = parameter(2.0, "How sharply a comparator decides.", at_least=1e-6, at_most=1e6)
    distribution: Distribution | str = parameter(
        Distribution.CAUCHY, "How a comparator decides, as a cumulative distribution of the score difference."
    )
    art_lambda: float = parameter(
        0.5, "The exponent of the distribution logistic_phi; the others ignore it.", at_least=0, below=1
    )

    @staticmethod
    @abstractmethod
    def layers(m: int, k: int) -> tuple[Layer, ...]:
        """Return the comparators on m lanes that bring the k largest to the last k lanes, largest last."""

    def terms(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        """Propagate the label's column; see `ClosedFormSorter.terms`."""
        m = scores.shape[-1]
        lanes = m - 1 - places_by_score(scores)
        values = torch.empty_like(scores).scatter(-1, lanes, scores)
        mass = torch.zeros_like(scores).scatter(-1, lanes[..., :1], 1.0)
        law = swap_law(Distribution(self.distribution), self.steepness, self.art_lambda)
        whole = tuple(int(k) for k in ks)
        probability, slope = column(type(self), values, mass, whole, law, gradient=gradient)
        if slope is not None:
            slope = slope.gather(-1, lanes.unsqueeze(-2).expand(slope.shape))
        return linear_terms(probability, slope)


def column(
    network: type[SortingNetwork], values: Tensor, mass: Tensor, ks: tuple[int, ...], law: SwapLaw, *, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Send the label's column through a network.

    Args:
        network: The network.
        values: What starts in each lane, (..., M).
        mass: How likely the label starts there, (..., M).
        ks: Increasing values of k, each in [1, M].
        law: How a comparator decides.
        gradient: Whether the derivative is wanted.

    Returns:
        c_k, (..., K), and its derivative by the values, (..., K, M).
    """
    m = values.shape[-1]
    traced = is_traced()
    # A compiler traces through a cache, and says that it does.
    schedule = (make_schedule if traced else _schedule)(network, m, ks[-1], values.device)
    values_BM, mass_BM = values.reshape(-1, m) * law.steepness, mass.reshape(-1, m)
    parts = 1
    if values.device.type == "cpu" and not traced:
        # A layer is half of the lanes, value and mass, but all of them are moved where they are laid out anew.
        largest = values_BM.numel() * (2 if schedule.moves else 1)
        parts = max(-(-largest // _SMALL), 1)
    answers = [
        _through(part_BM, part_mass_BM, ks, schedule, law, gradient=gradient)
        for part_BM, part_mass_BM in zip(values_BM.chunk(parts), mass_BM.chunk(parts), strict=True)
    ]
    c, slopes = (torch.cat(some) if len(some) > 1 else some[0] for some in zip(*answers, strict=True))
    shape = (*values.shape[:-1], len(ks))
    return c.reshape(shape), (slopes * law.steepness).reshape(*shape, m) if gradient else None


def _through(
    values_BM: Tensor, mass_BM: Tensor, ks: tuple[int, ...], schedule: Schedule, law: SwapLaw, *, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return c_k, (B, K), and its derivative by the values, (B, K, M), or nothing of it, (B, 0)."""
    state_M2B, swaps, pulls = _forward(values_BM, mass_BM, schedule, law, gradient=gradient)
    # Rounding may carry the sum of a whole row an ulp above one.
    c_RB = state_M2B[:, 1].index_select(0, schedule.ranks).cumsum(0).clamp(max=1)
    c_BK = torch.stack([c_RB[k - 1] for k in ks], dim=-1)
    return c_BK, _backward(state_M2B, swaps, pulls, ks, schedule) if gradient else c_BK[:, :0]


def make_schedule(network: type[SortingNetwork], m: int, k: int, device: torch.device) -> Schedule:
    """Lay out a network on m lanes for the k largest."""
    return compile_schedule(prune(network.layers(m, k), m, k), m, k, device)


_schedule = lru_cache(maxsize=64)(make_schedule)


def _forward(
    values_BM: Tensor, mass_BM: Tensor, schedule: Schedule, law: SwapLaw, *, gradient: bool
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the last state, (M, 2, B), and each layer's swap probabilities, (c, 1, B), and its pulls, (c, 2, B).

    A pull is by how much less crosses over if the upper value grows: the gap times the slope of the law.
    """
    state_M2B = torch.stack([values_BM.t(), mass_BM.t()], dim=1)
    swaps, pulls = [], []
    for step in schedule.steps:
        if step.enter is not None:
            state_M2B = state_M2B.index_select(0, step.enter)
        low_c2B, high_c2B = state_M2B[step.low], state_M2B[step.high]
        gap_c2B = high_c2B - low_c2B
        swap_c1B = law.swap_probability(gap_c2B[:, :1])
        stay_c1B = 1 - swap_c1B
        # A weighted mean of two masses cannot turn negative by rounding, which mass plus swap times difference can.
        mixed_c2B = (low_c2B * stay_c1B).addcmul_(high_c2B, swap_c1B)
        high_c2B.mul_(stay_c1B).addcmul_(low_c2B, swap_c1B)
        low_c2B.copy_(mixed_c2B)
        if gradient:
            swaps.append(swap_c1B)
            pulls.append(gap_c2B.mul_(law.slope(gap_c2B[:, :1])))
    return state_M2B, swaps, pulls


def _backward(
    state_M2B: Tensor, swaps: list[Tensor], pulls: list[Tensor], ks: tuple[int, ...], schedule: Schedule
) -> Tensor:
    """Return the derivative of every c_k by the values that entered, (B, K, M)."""
    batch, m = state_M2B.shape[-1], state_M2B.shape[0]
    grad_M2KB = state_M2B.new_zeros(m, 2, len(ks), batch)
    for place, k in enumerate(ks):
        grad_M2KB[schedule.ranks[:k], 1, place] = 1.0
    for step, swap_c1B, pull_c2B in zip(reversed(schedule.steps), reversed(swaps), reversed(pulls), strict=True):
        low_c2KB, high_c2KB = grad_M2KB[step.low], grad_M2KB[step.high]
        gap_c2KB = high_c2KB - low_c2KB
        moved_c2KB = gap_c2KB * swap_c1B.unsqueeze(2)
        # The comparator's matrix is symmetric, so gradients mix as the state did; the values also steer the swap.
        moved_c2KB[:, 0] -= gap_c2KB.mul_(pull_c2B.unsqueeze(2)).sum(1)
        low_c2KB += moved_c2KB
        high_c2KB -= moved_c2KB
        if step.leave is not None:
            grad_M2KB = grad_M2KB.index_select(0, step.leave)
    return grad_M2KB[:, 0].permute(2, 1, 0)
