"""The top-k cross entropy: minus the logarithm of the expected top-k success.

Petersen, Kuehne, Borgelt and Deussen, "Differentiable Top-k Classification Learning" (ICML 2022):

    L = -log sum_k P_K(k) c_k,    c_k = P(label is among the top k).

As in the authors' experiments on ImageNet, c_1 is the softmax over the kept scores, because relaxed sorting is a poor
judge of rank one; a sorter whose own c_1 is a softmax provides it itself. Where this differs from the authors'
package, it is on purpose: no epsilon in the logarithm, so hopeless samples are not capped; label mass is at most one;
no gradient ever pushes the label down; at least float32 arithmetic. `podium.topk.compat` has the original.

Shape legend: `...` any leading dimensions, n classes, m kept scores, K values of k.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from podium.topk._k_distribution import KDistribution
from podium.topk._one_sided import one_sided
from podium.topk._sorter import Sorter
from podium.topk._truncation import keep_strongest, lift_masked, weakest_first

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = get_args(Reduction)


class TopKCrossEntropy(nn.Module):
    """Top-k cross entropy as a module; the arguments are those of `topk_cross_entropy`.

    Example:
        >>> loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=OddEven(steepness=2), m=16)
        >>> loss(torch.zeros(4, 1000), torch.arange(4)).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        k: Mapping[int, float],
        sorter: Sorter,
        m: int | None = None,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
    ) -> None:
        """Check everything that does not need the data."""
        super().__init__()
        _check_choices(KDistribution.from_mapping(k).ks, sorter, m, reduction)
        self.k = dict(k)
        self.sorter = sorter
        self.m = m
        self.reduction: Reduction = reduction
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits (..., n) and labels (...)."""
        return topk_cross_entropy(
            logits,
            labels,
            k=self.k,
            sorter=self.sorter,
            m=self.m,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
        )

    def extra_repr(self) -> str:
        """Show the choices in the module's repr."""
        return f"k={self.k}, sorter={self.sorter}, m={self.m}, reduction={self.reduction!r}"


def topk_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    k: Mapping[int, float],
    sorter: Sorter,
    m: int | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Return minus the logarithm of the expected top-k success of the label.

    Args:
        logits: Scores of all classes, (..., n), any floating type; half precision is computed in float32. -inf rules
            a class out.
        labels: True classes, (...), integers in [0, n) or `ignore_index`.
        k: P_K, from k to its weight; the weights sum to 1.
        sorter: The relaxation that gives c_k.
        m: How many scores to sort, the label and its m - 1 strongest rivals; above the largest k. None, or a number
            of n and more, keeps all. Gradients reach only the kept scores.
        reduction: "mean" over the samples that count (0 if there is none), "sum", or "none" for one loss per sample.
        ignore_index: Samples with this label cost nothing.

    Returns:
        A scalar, or (...) for "none"; float32, or float64 for float64 logits.

    Raises:
        ValueError: If an argument is out of range. Labels are checked on the CPU only: a GPU would be stalled by it.
    """
    p_k = KDistribution.from_mapping(k)
    _check_choices(p_k.ks, sorter, m, reduction)
    _check_shapes(logits, labels, p_k.ks[-1])
    counts = labels != ignore_index
    classes = torch.where(counts, labels, 0).to(torch.int64)
    _check_labels(classes, logits.shape[-1])

    # Autocast would run parts of the sorter in half precision, where ties and tiny probabilities are the rule.
    with torch.autocast(logits.device.type, enabled=False):
        losses = _sample_losses(logits, classes, p_k, sorter, m)
        return _reduce(torch.where(counts, losses, 0.0), counts, reduction)


def _sample_losses(logits: Tensor, labels: Tensor, p_k: KDistribution, sorter: Sorter, m: int | None) -> Tensor:
    scores, lanes = _select(logits, labels, sorter, m)

    def losses(scores: Tensor) -> Tensor:
        log_c = _label_log_probabilities(scores, lanes, p_k.ks, sorter)
        return -(log_c + _log_weights(p_k.weights, log_c.dtype, log_c.device)).logsumexp(-1)

    return losses(scores) if sorter.monotone else one_sided(losses, scores, lanes)


def _select(logits: Tensor, labels: Tensor, sorter: Sorter, m: int | None) -> tuple[Tensor, Tensor]:
    """Return the scores the sorter shall see, in at least float32, and the label's place among them."""
    n = logits.shape[-1]
    if sorter.uses_all_scores:
        return _upcast(logits), labels
    if not sorter.lane_dependent and (m is None or m >= n):
        return lift_masked(_upcast(logits)), labels
    scores, classes = keep_strongest(logits, labels, n if m is None else min(m, n))
    scores = lift_masked(_upcast(scores))
    if sorter.lane_dependent:
        return weakest_first(scores, classes)
    return scores, torch.zeros_like(labels)


def _label_log_probabilities(scores: Tensor, lanes: Tensor, ks: tuple[int, ...], sorter: Sorter) -> Tensor:
    if ks[0] > 1 or sorter.exact_top1:
        return sorter.label_topk_log_probability(scores, lanes, ks)
    top1 = scores.log_softmax(-1).gather(-1, lanes.unsqueeze(-1))
    if ks == (1,):
        return top1
    return torch.cat([top1, sorter.label_topk_log_probability(scores, lanes, ks[1:])], dim=-1)


def _reduce(losses: Tensor, counts: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / counts.sum().clamp(min=1)


def _upcast(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


@lru_cache(maxsize=64)
def _log_weights(weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached, because copying it to a GPU in every step would wait for the device.
    with torch.inference_mode(mode=False):
        return torch.tensor(weights, dtype=dtype, device=device).log()


def _check_choices(ks: tuple[int, ...], sorter: Sorter, m: int | None, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; choose one of {', '.join(_REDUCTIONS)}.")
    sorter.check_ks(ks)
    if m is not None and m <= ks[-1] and not sorter.uses_all_scores:
        raise ValueError(f"m is {m} but the largest k is {ks[-1]}; raise m above it, or pass None to keep all scores.")


def _check_shapes(logits: Tensor, labels: Tensor, largest_k: int) -> None:
    if logits.dim() == 0 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "labels need the shape of logits without the last one."
        )
    if not logits.is_floating_point() or labels.is_floating_point() or labels.dtype is torch.bool:
        raise ValueError(
            f"logits are {logits.dtype} and labels {labels.dtype}; give floating point logits and integer labels."
        )
    if largest_k > logits.shape[-1]:
        raise ValueError(f"the largest k is {largest_k} but there are {logits.shape[-1]} classes; lower k.")


def _check_labels(classes: Tensor, n: int) -> None:
    if classes.device.type != "cpu" or classes.numel() == 0:
        return
    low, high = classes.aminmax()
    if low < 0 or high >= n:
        raise ValueError(f"labels reach from {int(low)} to {int(high)}; they must lie in [0, {n}) or be ignore_index.")
