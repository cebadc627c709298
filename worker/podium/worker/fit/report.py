"""What a model answers, image by image, and what can be learned from that: calibration, classes, confusions.

Shape legend: N images, C classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from podium.worker.fit.world import World

FILE = "evaluation.json"
_BINS = 15
_WORST_PAIRS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """A model's answers to images.

    Attributes:
        labels: the true classes, (N,) int64.
        predicted: the classes with the largest score, (N,) int64.
        confidence: the softmax probability of `predicted`, (N,) float32 in [0, 1], or NaN.
    """

    labels: Tensor
    predicted: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor) -> "Answers":
        """Those of a batch of scores, (N, C)."""
        confidence, predicted = scores.softmax(-1).max(-1)
        return cls(labels=labels, predicted=predicted, confidence=confidence)

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """All parts as one."""
        nothing = torch.empty(0, dtype=torch.int64)
        empty = cls(labels=nothing, predicted=nothing, confidence=torch.empty(0))
        columns = {field.name: [getattr(part, field.name).cpu() for part in (empty, *parts)] for field in fields(cls)}
        return cls(**{name: torch.cat(column) for name, column in columns.items()})

    def gathered(self, world: World) -> "Answers":
        """Those of all ranks. Every rank must call."""
        return Answers(**{field.name: world.gathered(getattr(self, field.name)) for field in fields(self)})

    def bins(self) -> list[dict[str, float]]:
        """Equal bins of confidence that are not empty: how many answers, how confident, and how often right."""
        place = (self.confidence.nan_to_num(0.0) * _BINS).long().clamp(max=_BINS - 1)
        right = (self.predicted == self.labels).double()
        found = []
        for number in torch.unique(place).tolist():
            here = place == number
            found.append(
                {
                    "from": number / _BINS,
                    "to": (number + 1) / _BINS,
                    "images": int(here.sum()),
                    "confidence": self.confidence[here].double().mean().item(),
                    "accuracy": right[here].mean().item(),
                }
            )
        return found

    def calibration_error(self) -> float:
        """The expected calibration error of the top-1 answer, in [0, 1] (Guo et al. 2017), over 15 equal bins."""
        count = max(1, len(self.labels))
        return sum(one["images"] / count * abs(one["confidence"] - one["accuracy"]) for one in self.bins())

    def by_class(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        """For every class that has images: how many, and the share that is answered with it."""
        images = torch.bincount(self.labels, minlength=len(classes))
        right = torch.bincount(self.labels[self.predicted == self.labels], minlength=len(classes))
        return {
            name: {"images": count, "top1": hits / count}
            for name, count, hits in zip(classes, images.tolist(), right.tolist(), strict=True)
            if count
        }

    def worst_pairs(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        """The most frequent confusions, at most 50: images of one class that are answered with another."""
        wrong = self.predicted != self.labels
        pairs, counts = torch.unique(self.labels[wrong] * len(classes) + self.predicted[wrong], return_counts=True)
        images = torch.bincount(self.labels, minlength=len(classes))
        # Of equal counts the first classes come first.
        order = counts.argsort(descending=True, stable=True)[:_WORST_PAIRS]
        return [
            {
                "class": classes[pair // len(classes)],
                "answered": classes[pair % len(classes)],
                "images": count,
                "share": count / int(images[pair // len(classes)]),
            }
            for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
        ]


def details(answers: Answers, classes: Sequence[str], metrics: dict[str, float]) -> dict[str, Any]:
    """What evaluation.json says of a split."""
    return {
        "images": len(answers.labels),
        "metrics": metrics,
        "classes": answers.by_class(classes),
        "worst_pairs": answers.worst_pairs(classes),
        "calibration": answers.bins(),
    }


def write(folder: Path, splits: dict[str, Any]) -> None:
    """Writes evaluation.json: split -> details."""
    (folder / FILE).write_text(json.dumps(splits, indent=1), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The splits of a checkpoint's evaluation.json; none, where it has none."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found
