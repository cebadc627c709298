"""What every sorter promises: the probability that the label is among the top k.

The loss of Petersen, Kuehne, Borgelt and Deussen, "Differentiable Top-k Classification Learning" (ICML 2022), reads a
relaxed permutation matrix only through c_k = P(label is among the top k). A sorter is therefore one function of scores
and label, and no permutation matrix crosses this interface.

Shape legend: `...` any leading dimensions, m scores per sample, K asked-for values of k.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

_FLOOR = 1e-30


@dataclass(frozen=True, kw_only=True)
class Sorter(ABC):
    """A relaxation of sorting, with its hyper-parameters as fields.

    A new family is one file: a frozen keyword-only dataclass with `label_topk_probability`, plus its row in `SORTERS`.
    Families that know their probability in the log domain derive from `LogDomainSorter` instead.

    Attributes:
        exact_top1: c_1 is a softmax by construction, so the loss takes it from the sorter and not from its own softmax.
        monotone: c_k provably never falls as the label's score rises; others get the loss's one-sided gradient.
        lane_dependent: the answer depends on the order of the scores, so the loss hands them over weakest first.
        uses_all_scores: the loss must not truncate to the m strongest scores.
        largest_k: the largest k the family can serve; None for any.
    """

    exact_top1: ClassVar[bool] = False
    monotone: ClassVar[bool] = False
    lane_dependent: ClassVar[bool] = False
    uses_all_scores: ClassVar[bool] = False
    largest_k: ClassVar[int | None] = None

    @abstractmethod
    def label_topk_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Return P(label among the top k) for every k asked for.

        Args:
            scores: Finite scores, (..., m), float32 or float64.
            labels: Position of the label among the m scores, (...), int64 in [0, m).
            ks: Increasing values of k, each in [1, m].

        Returns:
            Probabilities, (..., K), in [0, 1] and not falling along the last dimension.
        """

    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Return the logarithm of `label_topk_probability`, (..., K), finite for finite scores."""
        return _floored_log(self.label_topk_probability(scores, labels, ks))

    def check_ks(self, ks: tuple[int, ...]) -> None:
        """Raise ValueError if this family cannot serve these values of k."""
        if self.largest_k is not None and ks[-1] > self.largest_k:
            family = type(self).__name__
            raise ValueError(f"{family} serves k up to {self.largest_k}, not {ks[-1]}; choose another sorter.")


class LogDomainSorter(Sorter):
    """A family whose probability is known as a logarithm, and so never underflows."""

    @abstractmethod
    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Return log P(label among the top k); shapes as in `Sorter.label_topk_probability`."""

    def label_topk_probability(self, scores: Tensor, labels: Tensor, ks: tuple[int, ...]) -> Tensor:
        """Return the exponential of `label_topk_log_probability`."""
        return self.label_topk_log_probability(scores, labels, ks).exp()


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; give a finite number above 0.")


def _floored_log(probability: Tensor) -> Tensor:
    # Below the floor the logarithm goes on as its own tangent: a clamp would cut off the gradient of hopeless samples,
    # and the bare logarithm turns an underflow into an infinite loss.
    tangent = probability / _FLOOR + (math.log(_FLOOR) - 1)
    return torch.where(probability > _FLOOR, probability.clamp(min=_FLOOR).log(), tangent)
