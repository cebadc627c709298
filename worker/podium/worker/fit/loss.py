"""From the spec's sorter to the loss that computes it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any, Literal

from torch import Tensor, nn

from podium import topk
from podium.jobs.spec import JobSpec, Sorter


class JobLoss(topk.TopKCrossEntropy):
    """The loss of a job: NaN for scores that are not finite, on the CPU as on a GPU."""

    def forward(self, logits: Tensor, labels: Tensor, p_k: Tensor | None = None) -> Tensor:
        """The loss, in float32 whatever the scores are."""
        try:
            return super().forward(logits, labels, p_k)
        except topk.NonFiniteLogitsError:
            # Raised on the CPU only. The loop knows step and learning rate, and says it for both devices alike.
            return logits.float().sum() * math.nan


class Apart(nn.Module):
    """The weight of top-1 times its loss alone, plus the rest of P_K as a loss of its own.

    Up to a constant the form "smce" of the authors' package (Petersen et al. 2022): the gradients are the same. Where
    the label is hopeless, c_1 in the logarithm of a mixture has next to no pull; here it has cross-entropy's.

    Args:
        share: P_K(1), in (0, 1).
        first: the loss of top-1.
        rest: the loss of all other k.
    """

    def __init__(self, share: float, first: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.share, self.first, self.rest = share, first, rest

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss."""
        loss: Tensor = self.share * self.first(logits, labels) + (1 - self.share) * self.rest(logits, labels)
        return loss


def criterion(
    spec: JobSpec,
    class_counts: Sequence[int],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: float = 0.0,
) -> nn.Module:
    """The loss of a job: of scores, (B, C), and classes, (B,), or shares of classes, (B, C).

    Args:
        spec: names the sorter or baseline, with its parameters.
        class_counts: training images of every class, which no spec knows, for the families that ask.
        reduction: over the samples of a batch.
        label_smoothing: the share of the target that is spread over all classes.
    """
    family = _family(spec.sorter, class_counts)

    def loss(k: Mapping[int, float]) -> JobLoss:
        return JobLoss(k=k, sorter=family, m=spec.m, reduction=reduction, label_smoothing=label_smoothing)

    if not spec.top1_apart:
        return loss(spec.k)
    share = spec.k[1]
    return Apart(share, loss({1: 1.0}), loss({k: weight / (1 - share) for k, weight in spec.k.items() if k > 1}))


def _family(sorter: Sorter, class_counts: Sequence[int]) -> topk.Surrogate:
    """The family of the same name in podium.topk, which has the same fields."""
    cls: type[topk.Surrogate] = getattr(topk, type(sorter).__name__)
    arguments = {field.name: _value(getattr(sorter, field.name)) for field in fields(sorter)}
    if any(field.name == "class_counts" for field in fields(cls)):
        # A class may have lost its images since the job was accepted.
        arguments["class_counts"] = tuple(max(1, count) for count in class_counts)
    return cls(**arguments)


def _value(value: Any) -> Any:
    return topk.Distribution[value.name] if isinstance(value, Enum) else value
