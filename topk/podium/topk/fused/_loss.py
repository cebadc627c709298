"""From the terms of a family to one loss and one compact gradient per row.

Shape legend: N rows, M slots of kept scores, of which the first m count; KP slots of k, of which the first K count.
"""

from typing import NamedTuple

import triton.language as tl

from podium.topk.fused._selection import Ranked
from podium.topk.fused._triton import device

_FLOOR = tl.constexpr(1e-30)
_LOG_FLOOR = tl.constexpr(-69.07755278982137)


@device
def monotone(slope: tl.tensor, slot: tl.tensor) -> tl.tensor:
    """Leave out every c_k, (KP, M), that would fall for a better score of the label."""
    label = tl.sum(tl.where(slot[None, :] == 0, slope, 0.0), axis=1)
    return tl.where(label[:, None] < 0, 0.0, slope)


@device
def floored(c: tl.tensor, slope: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return log c, (KP,), which below 1e-30 goes on as its tangent, and its slope, (KP, M), from that of c."""
    bounded = tl.maximum(c, _FLOOR)
    log_c = tl.where(c > _FLOOR, tl.log(bounded), c / _FLOOR + (_LOG_FLOOR - 1))
    return log_c, slope / bounded[:, None]


class Output(NamedTuple):
    """Pointers to what a kernel writes.

    Attributes:
        losses: Of every row, (N,) float32.
        gradients: Derivative of each loss by the kept scores, (N, m) float32.
        classes: The classes of the kept scores, (N, m) int64.
    """

    losses: tl.tensor
    gradients: tl.tensor
    classes: tl.tensor


@device
def store_loss(
    output: Output,
    row: tl.tensor,
    weights: tl.tensor,
    ranked: Ranked,
    log_c: tl.tensor,
    slope: tl.tensor,
    m: tl.tensor,
    K: tl.tensor,
    M: tl.constexpr,
    KP: tl.constexpr,
    TOP1: tl.constexpr,
    GRADIENT: tl.constexpr,
) -> None:
    """Write -log sum_k P_K(k) c_k and, if GRADIENT, its derivative by the kept scores and their classes.

    Args:
        output: Where to write.
        row: Which row this is.
        weights: Pointer to this row's P_K: that of the softmax if TOP1, then those of `log_c`.
        ranked: The kept scores.
        log_c: Logarithms of the family's c_k, (KP,).
        slope: Their derivatives by the scores, (KP, M).
        m: How many slots of M count.
        K: How many slots of KP count.
        M: Slots of scores.
        KP: Slots of k.
        TOP1: Whether a c_1 from the softmax over the kept scores comes before the family's.
        GRADIENT: Whether the gradient is wanted.
    """
    nan = float("nan")
    slot, kth = tl.arange(0, M), tl.arange(0, KP)
    counts = slot < m
    weight = tl.load(weights + TOP1 + kth, mask=kth < K, other=1.0)
    joint = tl.where(kth < K, tl.log(weight) + log_c, -float("inf"))
    peak = tl.max(joint)
    probability = tl.zeros((M,), tl.float32)
    joint_top1 = -float("inf")
    if TOP1:
        log_probability = _log_softmax(ranked.scores, counts)
        probability = tl.exp(log_probability)
        joint_top1 = tl.log(tl.load(weights)) + tl.sum(tl.where(slot == 0, log_probability, 0.0))
        peak = tl.maximum(peak, joint_top1)
    peak = tl.where(peak == -float("inf"), 0.0, peak)
    log_p = peak + tl.log(tl.sum(tl.exp(joint - peak)) + tl.exp(joint_top1 - peak))
    tl.store(output.losses + row, tl.where(ranked.broken, nan, -log_p))

    if GRADIENT:
        gradient = -tl.sum(tl.exp(joint - log_p)[:, None] * slope, axis=0)
        if TOP1:
            rivals = tl.where(slot == 0, 0.0, probability)
            # Exact where the label is nearly certain, unlike 1 - p.
            by_score = tl.where(slot == 0, tl.sum(rivals), -rivals)
            gradient -= tl.exp(joint_top1 - log_p) * by_score
        gradient = tl.where(ranked.broken, nan, tl.where(ranked.ruled_out, 0.0, gradient))
        tl.store(output.gradients + row * m + slot, gradient, mask=counts)
        tl.store(output.classes + row * m + slot, ranked.classes.to(tl.int64), mask=counts)


@device
def _log_softmax(scores: tl.tensor, counts: tl.tensor) -> tl.tensor:
    """Return the logarithm of the softmax over the slots that count, -inf elsewhere."""
    masked = tl.where(counts, scores, -float("inf"))
    shifted = masked - tl.max(masked)
    return shifted - tl.log(tl.sum(tl.exp(shifted)))
