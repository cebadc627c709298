"""From the spec's sorter to the loss that computes it."""

from dataclasses import fields
from enum import Enum
from typing import Any, Literal

from podium import topk
from podium.jobs.spec import JobSpec, Sorter


def criterion(spec: JobSpec, *, reduction: Literal["mean", "sum"] = "mean") -> topk.TopKCrossEntropy:
    """The loss of a job, in float32 whatever the scores are."""
    return topk.TopKCrossEntropy(k=spec.k, sorter=_sorter(spec.sorter), m=spec.m, reduction=reduction)


def _sorter(sorter: Sorter) -> topk.Sorter:
    """The sorter of the same name in podium.topk, which has the same fields."""
    cls: type[topk.Sorter] = getattr(topk, type(sorter).__name__)
    return cls(**{field.name: _value(getattr(sorter, field.name)) for field in fields(sorter)})


def _value(value: Any) -> Any:
    return topk.Distribution[value.name] if isinstance(value, Enum) else value
