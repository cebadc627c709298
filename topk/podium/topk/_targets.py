"""From the loss of one label to class weights, smoothed labels and soft targets.

Shape legend: `...` any leading dimensions, n classes, K values of k.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from podium.topk._sorter import Surrogate

# Mixup and cutmix mix two images.
_LABELS_PER_TARGET = 2


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What to compute for one label: the arguments of `topk_cross_entropy`, checked.

    Attributes:
        sorter: The sorter or baseline.
        m: How many scores to keep.
        ks: The support of P_K.
        p_k: Its weights, (..., K) or (K,).
        class_weight: (n,) or None.
        label_smoothing: In [0, 1).
        epsilon: In [0, 1).
    """

    sorter: Surrogate
    m: int
    ks: tuple[float, ...]
    p_k: Tensor
    class_weight: Tensor | None
    label_smoothing: float
    epsilon: float


def hard_losses(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    """Return one weighted loss per sample, (...), for labels (...)."""
    losses = _label_losses(objective, logits, labels, objective.p_k)
    smoothing = objective.label_smoothing
    if not smoothing:
        return losses
    even = torch.full_like(logits[..., :1], smoothing / logits.shape[-1], dtype=losses.dtype)
    return (1 - smoothing) * losses + _softmax_losses(objective, logits, even)


def soft_losses(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    """Return one weighted loss per sample, (...), for targets (..., n) in the precision of the loss."""
    smoothing, n = objective.label_smoothing, logits.shape[-1]
    targets = targets * (1 - smoothing) + smoothing / n
    named = (targets - targets.amin(-1, keepdim=True)).topk(min(_LABELS_PER_TARGET, n), dim=-1)
    rest = targets.scatter_add(-1, named.indices, -named.values)
    logits_by_label = logits.unsqueeze(-2).expand(*named.indices.shape, n)
    losses = _label_losses(objective, logits_by_label, named.indices, objective.p_k.unsqueeze(-2))
    return (named.values * losses).sum(-1) + _softmax_losses(objective, logits, rest)


def _label_losses(objective: Objective, logits: Tensor, labels: Tensor, p_k: Tensor) -> Tensor:
    losses = objective.sorter.sample_losses(logits, labels, m=objective.m, ks=objective.ks, weights=p_k)
    if objective.epsilon:
        losses = -((1 - objective.epsilon) * (-losses).exp() + objective.epsilon).log()
    return losses if objective.class_weight is None else losses * objective.class_weight[labels]


def _softmax_losses(objective: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    """Return softmax cross entropy; a class ruled out by -inf has no part in it."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    costs = -scores.log_softmax(-1) * targets
    if objective.class_weight is not None:
        costs = costs * objective.class_weight
    return costs.masked_fill(scores == -torch.inf, 0.0).sum(-1)
