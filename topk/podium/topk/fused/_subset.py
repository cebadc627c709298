"""The subset sorter in one kernel; see `podium.topk._subset`, whose formulas and names these are.

Shape legend: N rows, M slots of scores (the label's first, then the rivals'), KP slots of k.
"""

import triton.language as tl

from podium.topk.fused._loss import Output, monotone, store_loss
from podium.topk.fused._math import LOG_ZERO, log_add_exp, log_sigmoid, sigmoid
from podium.topk.fused._selection import rank
from podium.topk.fused._triton import device, kernel

#: Rows of M numbers per degree that are put down for the gradient: of the rivals before each one and behind it.
SCRATCH = 2


@kernel
def subset_loss(
    logits: tl.tensor,
    labels: tl.tensor,
    weights: tl.tensor,
    ks: tl.tensor,
    losses: tl.tensor,
    gradients: tl.tensor,
    kept_classes: tl.tensor,
    row_stride: tl.tensor,
    weight_stride: tl.tensor,
    n: tl.tensor,
    m: tl.tensor,
    K: tl.tensor,
    scratch: tl.tensor,
    degree: tl.tensor,
    temperature: tl.tensor,
    M: tl.constexpr,
    KP: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    ALIGN: tl.constexpr,
    TOP1: tl.constexpr,
    GRADIENT: tl.constexpr,
) -> None:
    """Do one row: logits (N, n), labels (N,), weights (N, K) or (K,), ks (KP,), scratch (N, 2, degree, M).

    row_stride and n count in units of ALIGN.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride * ALIGN
    ranked = rank(logits, tl.load(labels + row), n * ALIGN, m, M, C, R, TILE)
    k = tl.load(ks + tl.arange(0, KP)).to(tl.int32)
    scratch += row * degree * (2 * M)
    slot = tl.arange(0, M)
    best = tl.max(tl.where(slot < m, ranked.scores, -float("inf")))
    theta = (ranked.scores - best) / temperature
    label = tl.sum(tl.where(slot == 0, theta, 0.0))
    rivals = tl.where((slot > 0) & (slot < m), theta, LOG_ZERO)[None, :]
    with_k, with_fewer = _symmetric_polynomials(rivals, k, scratch, degree, M, KP, GRADIENT)
    margin = with_k - with_fewer - label
    log_c = tl.where(k < m, log_sigmoid(-margin), 0.0)
    slope = tl.zeros((KP, M), tl.float32)
    if GRADIENT:
        # Its numbers were written by other threads.
        tl.debug_barrier()
        pull = _inclusion_gain(rivals, k, with_k, with_fewer, scratch, degree, M, KP)
        slope = tl.where(slot[None, :] == 0, 1.0, -pull) * (sigmoid(margin) / temperature)[:, None]
        slope = tl.where((k < m)[:, None], monotone(slope, slot), 0.0)
    output = Output(losses, gradients, kept_classes)
    store_loss(output, row, weights + row * weight_stride, ranked, log_c, slope, m, K, M, KP, TOP1, GRADIENT)


@device
def _symmetric_polynomials(
    rivals: tl.tensor,
    k: tl.tensor,
    scratch: tl.tensor,
    degree: tl.tensor,
    M: tl.constexpr,
    KP: tl.constexpr,
    GRADIENT: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return log e_k and log e_{k-1} of the rivals, (KP,).

    e_j(1..i) = e_j(1..i-1) + exp(theta_i) e_{j-1}(1..i-1): for each degree one running sum over the rivals.
    """
    slot = tl.arange(0, M)[None, :]
    before = tl.zeros((1, M), tl.float32)
    behind = tl.zeros((1, M), tl.float32)
    with_k = tl.zeros((KP,), tl.float32)
    with_fewer = tl.zeros((KP,), tl.float32)
    for j in range(1, degree + 1):
        if GRADIENT:
            tl.store(scratch + (j - 1) * M + slot, before)
            tl.store(scratch + (degree + j - 1) * M + slot, behind)
            behind = tl.associative_scan(rivals + behind, 1, log_add_exp, reverse=True)
            behind = tl.gather(behind, tl.minimum(slot + 1, M - 1), 1)
            behind = tl.where(slot == M - 1, LOG_ZERO, behind)
        up_to = tl.associative_scan(rivals + before, 1, log_add_exp)
        total = tl.sum(tl.where(slot == M - 1, up_to, 0.0))
        with_k = tl.where(k == j, total, with_k)
        with_fewer = tl.where(k - 1 == j, total, with_fewer)
        before = tl.gather(up_to, tl.maximum(slot - 1, 0), 1)
        before = tl.where(slot == 0, LOG_ZERO, before)
    return with_k, with_fewer


@device
def _inclusion_gain(
    rivals: tl.tensor,
    k: tl.tensor,
    with_k: tl.tensor,
    with_fewer: tl.tensor,
    scratch: tl.tensor,
    degree: tl.tensor,
    M: tl.constexpr,
    KP: tl.constexpr,
) -> tl.tensor:
    """Return how much likelier each rival is in a k-subset of the rivals than in one of k - 1, (KP, M)."""
    slot = tl.arange(0, M)[None, :]
    gain = tl.zeros((KP, M), tl.float32)
    for j in range(1, degree + 1):
        # The j - 1 others come from before it and from behind it.
        others = tl.full((1, M), LOG_ZERO, tl.float32)
        for count in range(j):
            before = tl.load(scratch + count * M + slot)
            others = log_add_exp(others, before + tl.load(scratch + (degree + j - 1 - count) * M + slot))
        log_weight = rivals + others
        # Rounding of huge scores must not make probabilities of more than one of them.
        gain += tl.exp(tl.minimum(tl.where((k == j)[:, None], log_weight - with_k[:, None], LOG_ZERO), 0.0))
        gain -= tl.exp(tl.minimum(tl.where((k - 1 == j)[:, None], log_weight - with_fewer[:, None], LOG_ZERO), 0.0))
    return gain
