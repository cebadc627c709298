"""The laws by which a comparator decides whether two lanes are in order already.

For lanes with values a (to receive the smaller) and b, d = b - a, a law is a symmetric distribution function f
and f(d) = P(in order already). Sources: logistic and its activation replacement trick, Petersen et al., ICML 2021;
reciprocal, Cauchy and optimal, Petersen et al., "Monotonic Differentiable Sorting Networks", ICLR 2022, which says
that these three make monotonic networks.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import torch
from torch import Tensor


class Distribution(StrEnum):
    """Names of the comparator laws; d is the difference times the steepness."""

    LOGISTIC = "logistic"
    """sigmoid(d)."""
    LOGISTIC_PHI = "logistic_phi"
    """sigmoid(d / |d|^art_lambda): the paper's choice, very steep where two scores tie."""
    GAUSSIAN = "gaussian"
    """The normal distribution function; its tails underflow first."""
    RECIPROCAL = "reciprocal"
    """(1 + d / (2 + |d|)) / 2; monotonic."""
    CAUCHY = "cauchy"
    """1/2 + atan(d) / pi; monotonic, and what the authors recommend."""
    OPTIMAL = "optimal"
    """Linear up to 1/4, then hyperbolic; monotonic with the least error."""


class SwapLaw(ABC):
    """A comparator law; elementwise, in any shape."""

    @abstractmethod
    def swap_probability(self, d: Tensor) -> Tensor:
        """Return f(-d) = 1 - f(d), written so that it stays exact where it is tiny."""

    @abstractmethod
    def slope(self, d: Tensor) -> Tensor:
        """Return f'(d)."""


@dataclass(frozen=True, kw_only=True)
class SteepLaw(SwapLaw):
    """A law at a given steepness s; `art_lambda` and `tie_epsilon` concern logistic_phi."""

    steepness: float
    art_lambda: float
    tie_epsilon: float


@dataclass(frozen=True, kw_only=True)
class RoundedLaw(SwapLaw):
    """A law as the authors' package computes it, f first and 1 - f from it, so that the tail drowns in rounding."""

    exact: SwapLaw

    def swap_probability(self, d: Tensor) -> Tensor:
        """Return 1 - f(d), with f rounded near one."""
        return 1 - self.exact.swap_probability(-d)

    def slope(self, d: Tensor) -> Tensor:
        """Return the slope of the exact law."""
        return self.exact.slope(d)


class Logistic(SteepLaw):
    """The logistic distribution function."""

    def swap_probability(self, d: Tensor) -> Tensor:
        """Return sigmoid(-s d)."""
        return (d * -self.steepness).sigmoid_()

    def slope(self, d: Tensor) -> Tensor:
        """Return s p (1 - p)."""
        p = self.swap_probability(d)
        return (1 - p).mul_(p).mul_(self.steepness)


class LogisticPhi(SteepLaw):
    """Logistic with the activation replacement trick; its slope at a tie is s/4 tie_epsilon^-lambda."""

    def swap_probability(self, d: Tensor) -> Tensor:
        """Return sigmoid(-s d / (|d| + epsilon)^lambda)."""
        power = (d.abs() + self.tie_epsilon).pow_(-self.art_lambda)
        return power.mul_(d).mul_(-self.steepness).sigmoid_()

    def slope(self, d: Tensor) -> Tensor:
        """Return s p (1 - p) times the slope of the replaced activation."""
        p = self.swap_probability(d)
        size = d.abs()
        base = size + self.tie_epsilon
        # Two factors instead of base^(-lambda - 1), which underflows for far apart scores before it meets `size`.
        inner = base.pow(-self.art_lambda) * (1 - self.art_lambda * size / base)
        return (1 - p).mul_(p).mul_(self.steepness).mul_(inner)


class Gaussian(SteepLaw):
    """The normal distribution function with standard deviation 1 / steepness."""

    def swap_probability(self, d: Tensor) -> Tensor:
        """Return Phi(-s d)."""
        v = d * (self.steepness * math.sqrt(0.5))
        return torch.where(v > 0, torch.erfc(v), 1 - torch.erf(v)).mul_(0.5)

    def slope(self, d: Tensor) -> Tensor:
        """Return s phi(s d)."""
        density = (d * self.steepness).square_().mul_(-0.5).exp_()
        return density.mul_(self.steepness / math.sqrt(2 * math.pi))


class Reciprocal(SteepLaw):
    """The distribution function with a hyperbolic tail on both sides."""

    def swap_probability(self, d: Tensor) -> Tensor:
        """Return 1 / (2 + |v|) for v = s d above 0, its complement below: 1/2 (1 - v / (2 + |v|))."""
        v = d * self.steepness
        tail = 1 / (v.abs() + 2)
        return torch.where(v > 0, tail, 1 - tail)

    def slope(self, d: Tensor) -> Tensor:
        """Return s / (2 + |v|)^2."""
        return (d * self.steepness).abs_().add_(2).square_().reciprocal_().mul_(self.steepness)


class Cauchy(SteepLaw):
    """The Cauchy distribution function."""

    def swap_probability(self, d: Tensor) -> Tensor:
        """Return atan2(1, v) / pi = 1/2 - atan(v) / pi with v = s d."""
        v = d * self.steepness
        return torch.atan2(torch.ones_like(v), v).mul_(1 / math.pi)

    def slope(self, d: Tensor) -> Tensor:
        """Return s / (pi (1 + v^2))."""
        return (d * self.steepness).square_().add_(1).reciprocal_().mul_(self.steepness / math.pi)


class Optimal(SteepLaw):
    """The monotonic law with the least error (ICLR 2022)."""

    def swap_probability(self, d: Tensor) -> Tensor:
        """Return 1/2 - v near zero, and 1 / (16 |v|) or its complement beyond |v| = 1/4."""
        v = d * self.steepness
        tail = 1 / (16 * v.abs().clamp_(min=0.25))
        return torch.where(v.abs() <= 0.25, 0.5 - v, torch.where(v > 0, tail, 1 - tail))

    def slope(self, d: Tensor) -> Tensor:
        """Return s near zero and s / (16 v^2) beyond."""
        v = (d * self.steepness).abs_().clamp_(min=0.25)
        return (16 * v * v).reciprocal_().mul_(self.steepness)


# By plain strings, which a compiler can look up.
_LAWS: Mapping[str, type[SteepLaw]] = MappingProxyType(
    {
        "logistic": Logistic,
        "logistic_phi": LogisticPhi,
        "gaussian": Gaussian,
        "reciprocal": Reciprocal,
        "cauchy": Cauchy,
        "optimal": Optimal,
    }
)

_TIE_EPSILON = 1e-3
_PUBLISHED_TIE_EPSILON = 1e-10


def swap_law(distribution: Distribution, steepness: float, art_lambda: float) -> SwapLaw:
    """Return the law of this name; the slope of logistic_phi at a tie is bounded."""
    return _LAWS[str(distribution)](steepness=steepness, art_lambda=art_lambda, tie_epsilon=_TIE_EPSILON)


def published_law(distribution: Distribution, steepness: float, art_lambda: float) -> SwapLaw:
    """Return the law as the authors' package computes it."""
    law = _LAWS[str(distribution)](steepness=steepness, art_lambda=art_lambda, tie_epsilon=_PUBLISHED_TIE_EPSILON)
    return RoundedLaw(exact=law)
