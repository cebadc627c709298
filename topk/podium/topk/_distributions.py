"""The laws by which a comparator decides whether two lanes are in order already.

For lanes with values a (to receive the smaller) and b, v = s (b - a) with the steepness s, a law is a symmetric
distribution function f and f(v) = P(in order already). Sources: logistic and its activation replacement trick,
Petersen et al., ICML 2021; reciprocal, Cauchy and optimal, Petersen et al., "Monotonic Differentiable Sorting
Networks", ICLR 2022, which says that these three make monotonic networks.
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
    """Names of the comparator laws."""

    LOGISTIC = "logistic"
    """sigmoid(v)."""
    LOGISTIC_PHI = "logistic_phi"
    """sigmoid(v / |d|^art_lambda) with d = v / s: the paper's choice, very steep where two scores tie."""
    GAUSSIAN = "gaussian"
    """The normal distribution function; its tails underflow first."""
    RECIPROCAL = "reciprocal"
    """(1 + v / (2 + |v|)) / 2; monotonic."""
    CAUCHY = "cauchy"
    """1/2 + atan(v) / pi; monotonic, and what the authors recommend."""
    OPTIMAL = "optimal"
    """Linear up to 1/4, then hyperbolic; monotonic with the least error."""


class SwapLaw(ABC):
    """A comparator law; elementwise, in any shape.

    Attributes:
        steepness: What the scores are multiplied by before the network.
    """

    steepness: float

    @abstractmethod
    def swap_probability(self, v: Tensor) -> Tensor:
        """Return f(-v) = 1 - f(v), written so that it stays exact where it is tiny."""

    @abstractmethod
    def slope(self, v: Tensor) -> Tensor:
        """Return f'(v)."""


@dataclass(frozen=True, kw_only=True)
class NamedLaw(SwapLaw):
    """A law at a given steepness s; `art_lambda` and `tie_epsilon` concern logistic_phi."""

    steepness: float
    art_lambda: float
    tie_epsilon: float


@dataclass(frozen=True, kw_only=True)
class RoundedLaw(SwapLaw):
    """A law as the authors' package computes it, f first and 1 - f from it, so that the tail drowns in rounding."""

    steepness: float
    exact: SwapLaw

    def swap_probability(self, v: Tensor) -> Tensor:
        """Return 1 - f(v), with f rounded near one."""
        return 1 - self.exact.swap_probability(-v)

    def slope(self, v: Tensor) -> Tensor:
        """Return the slope of the exact law."""
        return self.exact.slope(v)


class Logistic(NamedLaw):
    """The logistic distribution function."""

    def swap_probability(self, v: Tensor) -> Tensor:
        """Return sigmoid(-v)."""
        return (-v).sigmoid_()

    def slope(self, v: Tensor) -> Tensor:
        """Return p (1 - p)."""
        p = self.swap_probability(v)
        return (1 - p).mul_(p)


class LogisticPhi(NamedLaw):
    """Logistic with the activation replacement trick; its slope at a tie is tie_epsilon^-lambda / 4."""

    def swap_probability(self, v: Tensor) -> Tensor:
        """Return sigmoid(-v / (|v| / s + epsilon)^lambda)."""
        power = (v.abs().div_(self.steepness) + self.tie_epsilon).pow_(-self.art_lambda)
        return power.mul_(v).neg_().sigmoid_()

    def slope(self, v: Tensor) -> Tensor:
        """Return p (1 - p) times the slope of the replaced activation."""
        p = self.swap_probability(v)
        size = v.abs() / self.steepness
        base = size + self.tie_epsilon
        # Two factors instead of base^(-lambda - 1), which underflows for far apart scores before it meets `size`.
        inner = base.pow(-self.art_lambda) * (1 - self.art_lambda * size / base)
        return (1 - p).mul_(p).mul_(inner)


class Gaussian(NamedLaw):
    """The normal distribution function."""

    def swap_probability(self, v: Tensor) -> Tensor:
        """Return Phi(-v)."""
        z = v * math.sqrt(0.5)
        return torch.where(z > 0, torch.erfc(z), 1 - torch.erf(z)).mul_(0.5)

    def slope(self, v: Tensor) -> Tensor:
        """Return phi(v)."""
        return v.square().mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))


class Reciprocal(NamedLaw):
    """The distribution function with a hyperbolic tail on both sides."""

    def swap_probability(self, v: Tensor) -> Tensor:
        """Return 1 / (2 + |v|) for v above 0, its complement below: 1/2 (1 - v / (2 + |v|))."""
        tail = 1 / (v.abs() + 2)
        return torch.where(v > 0, tail, 1 - tail)

    def slope(self, v: Tensor) -> Tensor:
        """Return 1 / (2 + |v|)^2."""
        return v.abs().add_(2).square_().reciprocal_()


class Cauchy(NamedLaw):
    """The Cauchy distribution function."""

    def swap_probability(self, v: Tensor) -> Tensor:
        """Return atan2(1, v) / pi = 1/2 - atan(v) / pi."""
        return torch.atan2(v.new_ones(()), v).mul_(1 / math.pi)

    def slope(self, v: Tensor) -> Tensor:
        """Return 1 / (pi (1 + v^2))."""
        return v.square().add_(1).reciprocal_().mul_(1 / math.pi)


class Optimal(NamedLaw):
    """The monotonic law with the least error (ICLR 2022)."""

    def swap_probability(self, v: Tensor) -> Tensor:
        """Return 1/2 - v near zero, and 1 / (16 |v|) or its complement beyond |v| = 1/4."""
        tail = 1 / (16 * v.abs().clamp_(min=0.25))
        return torch.where(v.abs() <= 0.25, 0.5 - v, torch.where(v > 0, tail, 1 - tail))

    def slope(self, v: Tensor) -> Tensor:
        """Return 1 near zero and 1 / (16 v^2) beyond."""
        size = v.abs().clamp_(min=0.25)
        return (16 * size * size).reciprocal_()


# By plain strings, which a compiler can look up.
_LAWS: Mapping[str, type[NamedLaw]] = MappingProxyType(
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
    return RoundedLaw(steepness=steepness, exact=law)
