"""Top-k accuracy in one pass: count on the device, add up over batches, divide once at the end.

Shape legend: `...` any leading dimensions, n classes, K values of k.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from podium.topk._checks import check_labels
from podium.topk._k_distribution import KDistribution

__all__ = ["TopKCounts", "expected_topk_accuracy", "topk_accuracy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TopKCounts(Mapping[int, Tensor]):
    """How many labels were among the top k; `counts[k]` is a scalar tensor, and counts of two batches add up.

    Attributes:
        ks: The values of k, increasing.
        correct: Correct samples per k, (K,) int64.
        total: Samples seen, () int64.
    """

    ks: tuple[int, ...]
    correct: Tensor
    total: Tensor

    def __add__(self, other: Self) -> Self:
        """Return the counts of both batches together."""
        if self.ks != other.ks:
            raise ValueError(
                f"counts for k = {self.ks} and {other.ks} cannot be added; count the same ks in every batch."
            )
        return type(self)(ks=self.ks, correct=self.correct + other.correct, total=self.total + other.total)

    def __getitem__(self, k: int) -> Tensor:
        """Return the number of labels among the top k."""
        if k not in self.ks:
            raise KeyError(k)
        return self.correct[self.ks.index(k)]

    def __iter__(self) -> Iterator[int]:
        """Iterate over the values of k."""
        return iter(self.ks)

    def __len__(self) -> int:
        """Return how many values of k were counted."""
        return len(self.ks)

    def accuracy(self) -> dict[int, float]:
        """Return the share of correct samples per k, in [0, 1]; waits for the device."""
        shares = (self.correct.double() / self.total.clamp(min=1)).tolist()
        return dict(zip(self.ks, shares, strict=True))


def topk_accuracy(logits: Tensor, labels: Tensor, ks: Sequence[int], *, ignore_index: int = -100) -> TopKCounts:
    """Count how many labels are among the k largest logits, for every k at once.

    The label's rank is the number of classes above it. A tie goes to the lower class index, so a row of equal logits is
    right for the first k classes only and constant outputs earn chance level. NaN ranks above everything, and a label
    whose own logit is NaN is wrong.

    Args:
        logits: Scores, (..., n).
        labels: True classes, (...), in [0, n) or `ignore_index`.
        ks: The values of k, each at least 1.
        ignore_index: Samples with this label are not counted.

    Raises:
        ValueError: If a k is no whole number, below 1 or above n, or the labels do not fit the logits; whether they are
            in range is looked at on the CPU only.
    """
    n = logits.shape[-1]
    wanted = _whole(ks)
    if not wanted or wanted[0] < 1 or wanted[-1] > n:
        raise ValueError(f"ks are {ks}; give at least one whole number, each from 1 to the number of classes, {n}.")
    if logits.shape[:-1] != labels.shape or labels.is_floating_point():
        raise ValueError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}, {labels.dtype}; "
            "give integer labels of the shape of logits without the last one."
        )
    labels = labels.to(torch.int64)
    counts = labels != ignore_index
    classes = torch.where(counts, labels, 0)
    check_labels(classes, n)
    rank = torch.where(counts, _rank(logits.detach(), classes), n)
    correct = torch.stack([(rank < k).sum() for k in wanted])
    return TopKCounts(ks=wanted, correct=correct, total=counts.sum())


def expected_topk_accuracy(counts: TopKCounts, p_k: Mapping[int, float]) -> float:
    """Return sum_k P_K(k) accuracy_k, the quantity whose relaxation the loss maximises; waits for the device.

    Raises:
        ValueError: If `p_k` is no distribution or has a k that was not counted.
    """
    distribution = KDistribution.from_mapping(p_k)
    missing = set[float](distribution.ks).difference(counts)
    if missing:
        raise ValueError(f"k = {sorted(missing)} was not counted; add it to ks of topk_accuracy.")
    accuracy = counts.accuracy()
    return sum(weight * accuracy[int(k)] for k, weight in zip(distribution.ks, distribution.weights, strict=True))


def _whole(ks: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(sorted({operator.index(k) for k in ks}))
    except TypeError:
        return ()


def _rank(logits: Tensor, labels: Tensor) -> Tensor:
    label = labels.unsqueeze(-1)
    own = logits.gather(-1, label)
    index = torch.arange(logits.shape[-1], device=logits.device)
    # "Not at most" instead of "above": comparisons with NaN are false, and NaN must count as above.
    ahead = ~(logits <= own) | ((logits == own) & (index < label))
    return ahead.sum(-1)
