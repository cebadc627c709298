"""What every family promises: a surrogate answers one loss per sample, a sorter the label's top-k probability.

The loss of Petersen, Kuehne, Borgelt and Deussen, "Differentiable Top-k Classification Learning" (ICML 2022), reads a
relaxed permutation matrix only through c_k = P(label is among the top k). A sorter is therefore one function of scores
and label, and no permutation matrix crosses this interface.

Shape legend: `...` any leading dimensions, n classes, m kept scores, K values of k.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from podium.topk import fused
from podium.topk._card import Card, check_parameters
from podium.topk._gradient import wants_gradient, with_gradient
from podium.topk._selection import rank

#: Below this probability a logarithm goes on as its tangent.
FLOOR = 1e-30


@dataclass(frozen=True, kw_only=True)
class Surrogate(ABC):
    """A differentiable stand-in for the top-k error, with its hyper-parameters as fields.

    Attributes:
        card: What it says of itself.
        uses_all_scores: The loss must not truncate to the m strongest scores.
        fractional_k: Whether k may be a fraction.
        largest_k: The largest k it can serve; None for any.

    Raises:
        ValueError: If a hyper-parameter is out of its range.
    """

    card: ClassVar[Card]
    uses_all_scores: ClassVar[bool] = False
    fractional_k: ClassVar[bool] = False
    largest_k: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        """Check the hyper-parameters."""
        check_parameters(self)

    @abstractmethod
    def sample_losses(
        self, logits: Tensor, labels: Tensor, *, m: int, ks: tuple[float, ...], weights: Tensor
    ) -> Tensor:
        """Return one loss per sample.

        Args:
            logits: Scores of all classes, (..., n), any floating type.
            labels: True classes, (...), int64 in [0, n).
            m: How many scores to keep, from above the largest k to n.
            ks: Increasing values of k, each from 1 to n.
            weights: P_K, the weight of each k, (..., K), at least float32.

        Returns:
            Losses, (...), at least float32.
        """

    def check_ks(self, ks: tuple[float, ...]) -> None:
        """Raise ValueError if this family cannot serve these values of k."""
        family = type(self).__name__
        if self.largest_k is not None and ks[-1] > self.largest_k:
            raise ValueError(f"{family} serves k up to {self.largest_k}, not {ks[-1]}; choose another sorter.")
        if not self.fractional_k and any(k != int(k) for k in ks):
            raise ValueError(f"k holds a fraction, which {family} cannot serve; choose a threshold sorter.")


@dataclass(frozen=True, kw_only=True)
class Sorter(Surrogate):
    """A relaxation of sorting.

    A family of your own is a frozen keyword-only dataclass with `label_topk_probability` (or its logarithm) in torch
    operations. The families of this package derive from `ClosedFormSorter` instead.

    Attributes:
        exact_top1: c_1 is a softmax by construction, so the loss takes it from the sorter. For all others the loss
            takes c_1 from the softmax over the kept scores, as in the authors' experiments on ImageNet: relaxed
            sorting is a poor judge of rank one.
    """

    exact_top1: ClassVar[bool] = False

    @abstractmethod
    def label_topk_probability(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return P(label among the top k) for every k asked for.

        Args:
            scores: Finite scores, (..., m), float32 or float64.
            labels: Position of the label among the m scores, (...), int64 in [0, m).
            ks: Increasing values of k, each in [1, m].

        Returns:
            Probabilities, (..., K), in [0, 1] and not falling along the last dimension.
        """

    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return the logarithm of `label_topk_probability`, (..., K), finite for finite scores."""
        return floored_log(self.label_topk_probability(scores, labels, ks))

    def sample_losses(
        self, logits: Tensor, labels: Tensor, *, m: int, ks: tuple[float, ...], weights: Tensor
    ) -> Tensor:
        """Return -log sum_k P_K(k) c_k; see `Surrogate.sample_losses`."""
        ranked = rank(logits.detach(), labels, m)
        scores = logits.gather(-1, ranked.classes).to(ranked.scores.dtype)
        if ranked.ruled_out is not None:
            scores = torch.where(ranked.ruled_out, ranked.scores, scores)
        log_c = self._log_c(scores, torch.zeros_like(labels), ks)
        return -(weights.log() + log_c).logsumexp(-1)

    def _log_c(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> Tensor:
        if ks[0] > 1 or self.exact_top1:
            return self.label_topk_log_probability(scores, labels, ks)
        top1 = scores.log_softmax(-1).gather(-1, labels.unsqueeze(-1))
        if ks == (1,):
            return top1
        return torch.cat([top1, self.label_topk_log_probability(scores, labels, ks[1:])], dim=-1)


class Terms(NamedTuple):
    """What a closed form says of ranked scores.

    Attributes:
        probability: c_k, (..., K).
        log_probability: log c_k, finite, (..., K).
        gradient: Derivative of log c_k by the ranked scores, (..., K, m); None if it was not asked for.
    """

    probability: Tensor
    log_probability: Tensor
    gradient: Tensor | None


class ClosedFormSorter(Sorter):
    """A family with c_k and its derivative in closed form.

    The derivative of c_k by the label's own score is never negative here: where a relaxation is not monotone, c_k
    would fall for a better score, and such a c_k has nothing to teach; its gradient is left out.
    """

    @abstractmethod
    def terms(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        """Return c_k of ranked scores.

        Args:
            scores: Label first, then rivals by falling score, (..., m), float32 or float64, finite. Nothing here is
                differentiated by autograd.
            ks: Increasing values of k, each in [1, m).
            gradient: Whether the gradient is wanted.
        """

    def label_topk_probability(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return c_k in scores of any order; see `Sorter.label_topk_probability`."""
        terms, classes = self._of_any_order(scores, labels, ks)
        if terms.gradient is None:
            return terms.probability
        return with_gradient(scores, terms.probability, terms.gradient * terms.probability.unsqueeze(-1), classes)

    def label_topk_log_probability(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> Tensor:
        """Return log c_k in scores of any order; see `Sorter.label_topk_probability`."""
        terms, classes = self._of_any_order(scores, labels, ks)
        if terms.gradient is None:
            return terms.log_probability
        return with_gradient(scores, terms.log_probability, terms.gradient, classes)

    def sample_losses(
        self, logits: Tensor, labels: Tensor, *, m: int, ks: tuple[float, ...], weights: Tensor
    ) -> Tensor:
        """Return -log sum_k P_K(k) c_k; see `Surrogate.sample_losses`."""
        wanted = wants_gradient(logits)
        with torch.no_grad():
            answer = fused.losses(self, logits, labels, m=m, ks=ks, weights=weights, gradient=wanted)
            losses, gradient, classes = answer or self._losses(logits, labels, m, ks, weights, gradient=wanted)
        return losses if gradient is None else with_gradient(logits, losses, gradient, classes)

    def _losses(
        self, logits: Tensor, labels: Tensor, m: int, ks: tuple[float, ...], weights: Tensor, *, gradient: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return what `fused.losses` returns."""
        ranked = rank(logits, labels, m)
        terms = self._all_terms(ranked.scores, ks, gradient=gradient)
        joint = weights.log() + terms.log_probability
        # For the usual few ks this is shorter work than logsumexp.
        log_p = reduce(torch.logaddexp, joint.unbind(-1))
        if terms.gradient is None:
            return -log_p, None, ranked.classes
        share = (joint - log_p.unsqueeze(-1)).exp().neg_()
        # Not as a product of matrices, which a GPU may round to ten bits.
        slope = (share.unsqueeze(-1) * terms.gradient).sum(-2)
        return -log_p, ranked.sparing(slope), ranked.classes

    def _of_any_order(self, scores: Tensor, labels: Tensor, ks: tuple[float, ...]) -> tuple[Terms, Tensor]:
        wanted = wants_gradient(scores)
        with torch.no_grad():
            ranked = rank(scores, labels, scores.shape[-1])
            return self._monotone(ranked.scores, ks, gradient=wanted), ranked.classes

    def _all_terms(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        """Return `terms`, with c_1 from the softmax unless the family has its own."""
        if ks[0] > 1 or self.exact_top1:
            return self._monotone(scores, ks, gradient=gradient)
        top1 = softmax_terms(scores, gradient=gradient)
        if ks == (1,):
            return top1
        return joined(top1, self._monotone(scores, ks[1:], gradient=gradient))

    def _monotone(self, scores: Tensor, ks: tuple[float, ...], *, gradient: bool) -> Terms:
        m = scores.shape[-1]
        # The top m of m scores hold the label for certain.
        certain = sum(k >= m for k in ks)
        if certain:
            sure = _certain_terms(scores, certain, gradient=gradient)
            if certain == len(ks):
                return sure
            return joined(self._monotone(scores, ks[:-certain], gradient=gradient), sure)
        terms = self.terms(scores, ks, gradient=gradient)
        if terms.gradient is None:
            return terms
        misled = terms.gradient[..., :1] < 0
        return terms._replace(gradient=terms.gradient.masked_fill_(misled, 0.0))


def softmax_terms(scores: Tensor, *, gradient: bool) -> Terms:
    """Return the softmax of the label, which comes first, as the c_1 of ranked scores."""
    log_probabilities = scores.log_softmax(-1)
    log_c = log_probabilities[..., :1]
    if not gradient:
        return Terms(log_c.exp(), log_c, None)
    gradient_of_log = log_probabilities.exp().neg_()
    # Exact where the label is nearly certain, unlike 1 - p.
    gradient_of_log[..., 0] = -gradient_of_log[..., 1:].sum(-1)
    return Terms(log_c.exp(), log_c, gradient_of_log.unsqueeze(-2))


def linear_terms(probability: Tensor, slope: Tensor | None) -> Terms:
    """Return the terms of a family that knows c_k, (..., K), and its derivative, (..., K, m), but not the logarithm."""
    gradient = None if slope is None else slope / probability.clamp(min=FLOOR).unsqueeze(-1)
    return Terms(probability, floored_log(probability), gradient)


def joined(first: Terms, second: Terms) -> Terms:
    """Return the terms of smaller and larger values of k together."""
    gradient = None
    if first.gradient is not None and second.gradient is not None:
        gradient = torch.cat([first.gradient, second.gradient], dim=-2)
    return Terms(
        torch.cat([first.probability, second.probability], dim=-1),
        torch.cat([first.log_probability, second.log_probability], dim=-1),
        gradient,
    )


def floored_log(probability: Tensor) -> Tensor:
    """Return the logarithm, which below 1e-30 goes on as its own tangent.

    A clamp would cut off the gradient of hopeless samples, and the bare logarithm turns an underflow into an infinite
    loss.
    """
    tangent = probability / FLOOR + (math.log(FLOOR) - 1)
    return torch.where(probability > FLOOR, probability.clamp(min=FLOOR).log(), tangent)


def _certain_terms(scores: Tensor, count: int, *, gradient: bool) -> Terms:
    ones = scores.new_ones(*scores.shape[:-1], count)
    slope = scores.new_zeros(*scores.shape[:-1], count, scores.shape[-1]) if gradient else None
    return Terms(ones, torch.zeros_like(ones), slope)
