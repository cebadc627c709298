"""From the spec's sorter to the loss that computes it."""

import math
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from typing import Any, Literal

from torch import Tensor

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


def criterion(
    spec: JobSpec,
    class_counts: Sequence[int],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: float = 0.0,
) -> JobLoss:
    """The loss of a job.

    Args:
        spec: names the sorter or baseline, with its parameters.
        class_counts: training images of every class, which no spec knows, for the families that ask.
        reduction: over the samples of a batch.
        label_smoothing: the share of the target that is spread over all classes.
    """
    family = _family(spec.sorter, class_counts)
    return JobLoss(k=spec.k, sorter=family, m=spec.m, reduction=reduction, label_smoothing=label_smoothing)


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
