"""The checks at the door of the loss: each error names the argument and the remedy."""

import math
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor

from podium.topk._eager import may_look
from podium.topk._sorter import Sorter, Surrogate

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = get_args(Reduction)


class NonFiniteLogitsError(ValueError):
    """A logit is NaN or +inf."""


def check_choices(
    ks: tuple[float, ...], sorter: Surrogate, m: int | None, reduction: str, label_smoothing: float, epsilon: float
) -> None:
    """Raise ValueError for what is wrong whatever the data."""
    if not isinstance(sorter, Surrogate):
        raise ValueError(f"sorter is {sorter!r}; give one with its hyper-parameters, such as Subset(temperature=1.0).")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; choose one of {', '.join(_REDUCTIONS)}.")
    for name, value in (("label_smoothing", label_smoothing), ("epsilon", epsilon)):
        if isinstance(value, str) or value is None or not 0 <= value < 1:
            raise ValueError(f"{name} is {value!r}; give a number in [0, 1).")
    if epsilon and not isinstance(sorter, Sorter):
        raise ValueError(f"epsilon is for sorters; {type(sorter).__name__} has no probability, so leave it at 0.")
    sorter.check_ks(ks)
    if m is not None and (isinstance(m, bool) or not isinstance(m, Integral)):
        raise ValueError(f"m is {m!r}; give a whole number above the largest k, or None to keep all scores.")
    if m is not None and m <= ks[-1] and not sorter.uses_all_scores:
        raise ValueError(f"m is {m} but the largest k is {ks[-1]}; raise m above it, or pass None to keep all scores.")


def check_shapes(
    logits: Tensor, labels: Tensor, ks: tuple[float, ...], p_k: Tensor | None, weight: Tensor | None
) -> None:
    """Raise ValueError for shapes or types that do not fit together."""
    for name, value in (("logits", logits), ("labels", labels), ("p_k", p_k), ("weight", weight)):
        if not (value is None or isinstance(value, Tensor)):
            raise ValueError(f"{name} is of type {type(value).__name__}; give a torch.Tensor.")
    if logits.dim() == 0 or not logits.is_floating_point() or labels.dtype is torch.bool:
        raise ValueError(
            f"logits are {logits.dtype}, {tuple(logits.shape)}, and labels {labels.dtype}; "
            "give floating point logits and integer labels, or floating point targets."
        )
    if labels.is_floating_point() and labels.shape != logits.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and targets {tuple(labels.shape)}; "
            "floating point targets need the shape of logits, integer labels that without the last one."
        )
    if not labels.is_floating_point() and logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "integer labels need the shape of logits without the last one, targets of floating point the whole shape."
        )
    if ks[-1] > logits.shape[-1]:
        raise ValueError(f"the largest k is {ks[-1]} but there are {logits.shape[-1]} classes; lower k.")
    if p_k is not None and p_k.shape != (*logits.shape[:-1], len(ks)):
        raise ValueError(f"p_k is {tuple(p_k.shape)}; give {len(ks)} weights a sample, for k = {list(ks)}.")
    if weight is not None and weight.shape != logits.shape[-1:]:
        raise ValueError(f"weight is {tuple(weight.shape)}; give one weight for each of {logits.shape[-1]} classes.")


def check_weights(p_k: Tensor, logits: Tensor) -> Tensor:
    """Return per-sample weights of k in the precision of the loss.

    Raises:
        ValueError: If they are negative or do not sum to 1; on the CPU only.
    """
    p_k = p_k.detach().to(torch.promote_types(logits.dtype, torch.float32))
    if may_look(p_k):
        wrong = (p_k < 0).any(-1) | ~((p_k.sum(-1) - 1).abs() <= 1e-4)
        if wrong.any():
            row = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(f"p_k[{_index(row)}] is {p_k[row].tolist()}; give weights that sum to 1.")
    return p_k


def check_labels(classes: Tensor, n: int) -> None:
    """Raise ValueError unless all labels are in [0, n); on the CPU only."""
    if not may_look(classes) or classes.numel() == 0 or are_classes(classes, n):
        return
    low, high = classes.aminmax()
    raise ValueError(f"labels reach from {int(low)} to {int(high)}; they must lie in [0, {n}) or be ignore_index.")


def check_targets(targets: Tensor) -> Tensor:
    """Return soft targets; raise ValueError if one is negative or not finite, on the CPU only."""
    if may_look(targets) and targets.numel():
        low, high = targets.aminmax()
        if not (low.item() >= 0 and math.isfinite(high.item())):
            wrong = ~((targets >= 0) & targets.isfinite()).all(-1)
            row = _index(wrong.nonzero()[0].tolist())
            raise ValueError(f"targets[{row}] hold a negative number, NaN or inf; give probabilities.")
    return targets


def are_classes(labels: Tensor, n: int) -> bool:
    """Return whether it is known that there are labels and all of them in [0, n); on the CPU only."""
    if not may_look(labels) or labels.numel() == 0:
        return False
    low, high = labels.aminmax()
    return low.item() >= 0 and high.item() < n


def check_finite(losses: Tensor, logits: Tensor) -> None:
    """Raise NonFiniteLogitsError if a sample's loss is not finite because of its logits; on the CPU only."""
    if not may_look(losses) or math.isfinite(losses.detach().sum().item()):
        return
    wrong = (logits.isnan() | (logits == torch.inf)).any(-1) & ~losses.isfinite()
    rows = wrong.nonzero().tolist()
    if rows:
        raise NonFiniteLogitsError(
            f"logits[{_index(rows[0])}] hold NaN or +inf, and {len(rows) - 1} more of {losses.numel()} rows do; "
            "lower the learning rate, or look for the layer where they arise."
        )


def _index(row: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, row))
