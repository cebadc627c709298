"""The top-k cross entropy: minus the logarithm of the expected top-k success.

Petersen, Kuehne, Borgelt and Deussen, "Differentiable Top-k Classification Learning" (ICML 2022):

    L = -log sum_k P_K(k) c_k,    c_k = P(label is among the top k).

As in the authors' experiments on ImageNet, c_1 is the softmax over the kept scores, because relaxed sorting is a poor
judge of rank one; a sorter whose own c_1 is a softmax provides it itself. Where this differs from the authors'
package, it is on purpose: no epsilon in the logarithm unless asked, so hopeless samples are not capped; label mass is
at most one; no gradient ever pushes the label down; at least float32 arithmetic.
`podium.topk.compat` has the original.

Shape legend: `...` any leading dimensions, n classes, m kept scores, K values of k.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from podium.topk._checks import (
    Reduction,
    are_classes,
    check_choices,
    check_finite,
    check_labels,
    check_shapes,
    check_targets,
    check_weights,
)
from podium.topk._constants import constant
from podium.topk._k_distribution import KDistribution
from podium.topk._sorter import Surrogate
from podium.topk._targets import Objective, hard_losses, soft_losses


class TopKCrossEntropy(nn.Module):
    """Top-k cross entropy as a module; the arguments are those of `topk_cross_entropy`.

    It has no parameters, and one buffer if there are class weights: it moves with `.to()`, pickles, and under
    DistributedDataParallel each rank takes the mean over its own samples, as with `nn.CrossEntropyLoss`.

    Example:
        >>> loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=OddEven(steepness=2), m=16)
        >>> loss(torch.zeros(4, 1000), torch.arange(4)).shape
        torch.Size([])
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        k: Mapping[int, float] | Mapping[float, float],
        sorter: Surrogate,
        m: int | None = None,
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        epsilon: float = 0.0,
    ) -> None:
        """Check everything that does not need the data."""
        super().__init__()
        self.sorter = sorter
        self.m = m
        self.register_buffer("weight", weight)
        self.reduction: Reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.epsilon = epsilon
        self.k = k

    @property
    def k(self) -> dict[float, float]:
        """P_K, from k to its weight. Setting it, as a schedule would, checks it as the constructor does."""
        return dict(zip(self._distribution.ks, self._distribution.weights, strict=True))

    @k.setter
    def k(self, k: Mapping[int, float] | Mapping[float, float]) -> None:
        distribution = KDistribution.from_mapping(k)
        check_choices(distribution.ks, self.sorter, self.m, self.reduction, self.label_smoothing, self.epsilon)
        self._distribution = distribution

    def forward(self, logits: Tensor, labels: Tensor, p_k: Tensor | None = None) -> Tensor:
        """Return the loss of logits (..., n) and labels (...) or (..., n), with a P_K for each sample if given."""
        return _loss(
            logits,
            labels,
            distribution=self._distribution,
            sorter=self.sorter,
            m=self.m,
            p_k=p_k,
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            epsilon=self.epsilon,
        )

    def extra_repr(self) -> str:
        """Show the choices in the module's repr."""
        return f"k={self.k}, sorter={self.sorter}, m={self.m}, reduction={self.reduction!r}"


def topk_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    k: Mapping[int, float] | Mapping[float, float],
    sorter: Surrogate,
    m: int | None = None,
    p_k: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    epsilon: float = 0.0,
) -> Tensor:
    """Return minus the logarithm of the expected top-k success of the label.

    Args:
        logits: Scores of all classes, (..., n), any floating type; half precision is computed in float32. -inf rules
            a class out.
        labels: True classes, (...), integers in [0, n) or `ignore_index`; or soft targets, (..., n), floating
            point, not negative, as mixup and cutmix make them. Of a soft target the two largest entries above its
            smallest one are learned by rank, and whatever remains, such as the even part of a smoothed target, by
            softmax cross entropy.
        k: P_K, from k to its weight; the weights sum to 1. Threshold sorters take fractions such as 2.5.
        sorter: The relaxation that gives c_k, or a baseline.
        m: How many scores to sort, the label and its m - 1 strongest rivals; above the largest k. None, or a number
            of n and more, keeps all. Gradients reach only the kept scores.
        p_k: A P_K for each sample instead of that of `k`, (..., K): weights of the ks of `k` in increasing order.
        weight: Weight of each class, (n,), any type.
        reduction: "mean" over the samples that count (0 if there is none), weighted as by `nn.CrossEntropyLoss`;
            "sum"; or "none" for one loss per sample.
        ignore_index: Samples with this label cost nothing.
        label_smoothing: How much of the target is spread over all classes, in [0, 1). That part is softmax cross
            entropy over all n scores: "every class a little" says nothing of ranks.
        epsilon: In [0, 1); above 0 it caps the loss at -log(epsilon), which fades the gradient of hopeless samples, as
            in the authors' package (1e-7). Sorters only.

    Returns:
        A scalar, or (...) for "none"; float32, or float64 for float64 logits. Its gradient is exact; a second
        derivative is refused except for the softmax.

    Raises:
        ValueError: If an argument is out of range. Labels and values are checked on the CPU only: a GPU would be
            stalled by it, and answers NaN for NaN.
        NonFiniteLogitsError: If a logit is NaN or +inf, in an ignored sample, too; it names the row.
    """
    distribution = KDistribution.from_mapping(k)
    check_choices(distribution.ks, sorter, m, reduction, label_smoothing, epsilon)
    return _loss(
        logits,
        labels,
        distribution=distribution,
        sorter=sorter,
        m=m,
        p_k=p_k,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        epsilon=epsilon,
    )


def _loss(
    logits: Tensor,
    labels: Tensor,
    *,
    distribution: KDistribution,
    sorter: Surrogate,
    m: int | None,
    p_k: Tensor | None,
    weight: Tensor | None,
    reduction: Reduction,
    ignore_index: int,
    label_smoothing: float,
    epsilon: float,
) -> Tensor:
    check_shapes(logits, labels, distribution.ks, p_k, weight)
    n, dtype = logits.shape[-1], torch.promote_types(logits.dtype, torch.float32)
    # Weights of float64 would make the loss float64, and weights of half precision their sum infinite.
    weight = None if weight is None else weight.to(dtype)
    objective = Objective(
        sorter=sorter,
        m=n if m is None else min(m, n),
        ks=distribution.ks,
        p_k=constant(distribution.weights, dtype, logits.device) if p_k is None else check_weights(p_k, logits),
        class_weight=weight,
        label_smoothing=label_smoothing,
        epsilon=epsilon,
    )
    counts: Tensor | None = None
    counted: Tensor | None = None
    # Autocast would run parts of a sorter in half precision, where ties and tiny probabilities are the rule.
    with _full_precision(logits.device.type):
        if labels.is_floating_point():
            losses = soft_losses(objective, logits, check_targets(labels).to(dtype))
            counts = torch.ones_like(losses)
        elif are_classes(classes := labels.to(torch.int64), n) and not 0 <= ignore_index < n:
            losses = hard_losses(objective, logits, classes)
            if weight is not None:
                counts = weight[classes]
        else:
            counted = classes != ignore_index
            classes = torch.where(counted, classes, 0)
            check_labels(classes, n)
            losses = hard_losses(objective, logits, classes)
            counts = counted.to(losses.dtype) if weight is None else torch.where(counted, weight[classes], 0.0)
        # Those of ignored samples, too: zero times their gradient of NaN is NaN.
        check_finite(losses, logits)
        if counted is not None:
            losses = torch.where(counted, losses, 0.0)
        return _reduce(losses, counts, reduction)


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    # Some devices, "meta" among them, know no autocast.
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _reduce(losses: Tensor, counts: Tensor | None, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if counts is None:
        return losses.mean()
    total = counts.sum()
    return losses.sum() / torch.where(total > 0, total, 1.0)
