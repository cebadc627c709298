"""Threshold sorters: c_k = F((x_y - t_k) / tau), with a threshold t_k that makes all classes share k places.

Six papers are this one formula with different F. With the density f and z_i = (x_i - t) / tau, the implicit function
theorem gives dt / dx_j = f(z_j) / sum_i f(z_i), so c_k needs the label's score and one number per k, its derivative
one pass over the scores. F is at most one and c_k never falls as the label's score rises. k may be a fraction.

Shape legend: `...` any leading dimensions, m scores, K values of k.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from podium.topk._selection import places_by_score
from podium.topk._sorter import ClosedFormSorter, Terms


class Membership(NamedTuple):
    """F at some z.

    Attributes:
        probability: F(z).
        log_probability: log F(z), finite.
        hazard: f(z) / F(z), the slope of the logarithm.
    """

    probability: Tensor
    log_probability: Tensor
    hazard: Tensor


@dataclass(frozen=True, kw_only=True)
class ThresholdSorter(ClosedFormSorter):
    """A sorter by threshold; a family says its distribution function and solves for the threshold."""

    fractional_k: ClassVar[bool] = True

    @property
    @abstractmethod
    def scale(self) -> float:
        """Return tau, the width of F in units of the scores."""

    @abstractmethod
    def thresholds(self, z: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return the t_k of scores in falling order, (..., K); both in units of `scale`."""

    @abstractmethod
    def membership(self, z: Tensor) -> Membership:
        """Return F(z)."""

    @abstractmethod
    def shares(self, z: Tensor, places: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return how much of the threshold each score moves, (..., K, m).

        Args:
            z: Distances of the ranked scores from the thresholds, (..., K, m).
            places: Where each score stands in the falling order, (..., m).
            ks: The values of k.
        """

    def terms(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        """Solve for the thresholds; see `ClosedFormSorter.terms`."""
        z = (scores - scores.amax(-1, keepdim=True)) / self.scale
        places = places_by_score(z)
        t = self.thresholds(torch.empty_like(z).scatter(-1, places, z), ks)
        c, log_c, hazard = self.membership(z[..., :1] - t)
        if not gradient:
            return Terms(c, log_c, None)
        share = self.shares(z.unsqueeze(-2) - t.unsqueeze(-1), places, ks)
        own = 1 - share[..., :1]
        slope = torch.cat([own, -share[..., 1:]], dim=-1) * hazard.unsqueeze(-1) / self.scale
        return Terms(c, log_c, slope)


@dataclass(frozen=True, kw_only=True)
class SmoothThresholdSorter(ThresholdSorter):
    """A threshold sorter whose density is nowhere zero: everything is known in the log domain."""

    @abstractmethod
    def log_probability(self, z: Tensor) -> Tensor:
        """Return log F(z)."""

    @abstractmethod
    def hazard(self, z: Tensor) -> Tensor:
        """Return f(z) / F(z)."""

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """Return log f(z), up to a constant."""

    def membership(self, z: Tensor) -> Membership:
        """Return F(z); see `ThresholdSorter.membership`."""
        log_c = self.log_probability(z)
        return Membership(log_c.exp(), log_c, self.hazard(z))

    def shares(self, z: Tensor, places: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return f(z_j) / sum_i f(z_i); see `ThresholdSorter.shares`."""
        return self.log_density(z).softmax(-1)
