"""NeuralSort and SoftSort in one kernel; see `podium.topk._rows`, whose formulas and names these are.

Shape legend: N rows, M slots or places of scores, RP slots of ranks, KP slots of k.
"""

import triton.language as tl

from podium.topk.fused._loss import Output, monotone, store_loss
from podium.topk.fused._selection import places, rank, slots
from podium.topk.fused._triton import device, kernel

NEURAL = tl.constexpr(0)
SOFT = tl.constexpr(1)


@kernel
def rows_loss(
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
    temperature: tl.tensor,
    M: tl.constexpr,
    KP: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    ALIGN: tl.constexpr,
    TOP1: tl.constexpr,
    GRADIENT: tl.constexpr,
    RP: tl.constexpr,
    FAMILY: tl.constexpr,
) -> None:
    """Do one row: logits (N, n), labels (N,), weights (N, K) or (K,), ks (KP,).

    row_stride and n count in units of ALIGN.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride * ALIGN
    ranked = rank(logits, tl.load(labels + row), n * ALIGN, m, M, C, R, TILE)
    k = tl.load(ks + tl.arange(0, KP)).to(tl.int32)
    place = tl.arange(0, M)
    ordered = tl.gather(ranked.scores, slots(ranked.above, place), 0)
    counts = place < m
    if FAMILY == NEURAL:
        row_logits = _neural_logits(ordered, counts, M, RP) / temperature
    else:
        row_logits = -tl.abs(_soft_gaps(ordered, M, RP)) / temperature
    row_logits = tl.where(counts[None, :], row_logits, -float("inf"))
    row_logits -= tl.max(row_logits, axis=1)[:, None]
    log_entries = row_logits - tl.log(tl.sum(tl.exp(row_logits), axis=1))[:, None]
    is_label = (place == ranked.above)[None, :]
    label_entry = tl.sum(tl.where(is_label, log_entries, 0.0), axis=1)

    in_top = tl.arange(0, RP)[None, :] < k[:, None]
    by_rank = tl.where(in_top, label_entry[None, :], -float("inf"))
    largest = tl.max(by_rank, axis=1)
    log_mass = largest + tl.log(tl.sum(tl.exp(by_rank - largest[:, None]), axis=1))
    slope = tl.zeros((KP, M), tl.float32)
    if GRADIENT:
        upstream = tl.where(is_label, 1.0, 0.0) - tl.exp(log_entries)
        if FAMILY == NEURAL:
            pulled = _neural_pull(upstream, M, RP) / temperature
        else:
            pulled = _soft_pull(upstream, ordered, M, RP) / temperature
        share = tl.exp(by_rank - log_mass[:, None])
        slope = tl.sum(share[:, :, None] * pulled[None, :, :], axis=1)
        slope = tl.gather(slope, tl.broadcast_to(places(ranked.above, M)[None, :], (KP, M)), 1)
        # Mass above one is capped.
        slope = tl.where(((k < m) & (log_mass <= 0))[:, None], monotone(slope, place), 0.0)
    log_c = tl.where(k < m, tl.minimum(log_mass, 0.0), 0.0)
    output = Output(losses, gradients, kept_classes)
    store_loss(output, row, weights + row * weight_stride, ranked, log_c, slope, m, K, M, KP, TOP1, GRADIENT)


@device
def _neural_logits(scores: tl.tensor, counts: tl.tensor, M: tl.constexpr, RP: tl.constexpr) -> tl.tensor:
    """Return (2 r - 1) (s_0 - s_j) - 2 sum_{i <= j} (i - 1) (s_{i-1} - s_i), (RP, M), of scores in falling order."""
    place = tl.arange(0, M)
    previous = tl.gather(scores, tl.maximum(place - 1, 0), 0)
    gap = tl.where(counts, previous - scores, 0.0)
    weighted = tl.cumsum(gap * (place - 1), 0)
    below_first = tl.sum(tl.where(place == 0, scores, 0.0)) - scores
    odd = (2 * tl.arange(0, RP) - 1)[:, None]
    return odd * below_first[None, :] - 2 * weighted[None, :]


@device
def _neural_pull(upstream: tl.tensor, M: tl.constexpr, RP: tl.constexpr) -> tl.tensor:
    """Pull a gradient back through `_neural_logits`; every row of it sums to zero."""
    # Over rivals behind j and j itself.
    behind = upstream - tl.cumsum(upstream, 1)
    distance = tl.arange(0, M)[None, :] - tl.arange(0, RP)[:, None]
    return (2 * distance + 1) * upstream - 2 * behind


@device
def _soft_gaps(scores: tl.tensor, M: tl.constexpr, RP: tl.constexpr) -> tl.tensor:
    """Return s_r - s_j, (RP, M), of scores in falling order."""
    diagonal = tl.arange(0, RP)[:, None] == tl.arange(0, M)[None, :]
    return tl.sum(tl.where(diagonal, scores[None, :], 0.0), axis=1)[:, None] - scores[None, :]


@device
def _soft_pull(upstream: tl.tensor, scores: tl.tensor, M: tl.constexpr, RP: tl.constexpr) -> tl.tensor:
    """Pull a gradient back through -|s_r - s_j|."""
    gaps = _soft_gaps(scores, M, RP)
    signed = tl.where(gaps > 0, upstream, tl.where(gaps < 0, -upstream, 0.0))
    diagonal = tl.arange(0, RP)[:, None] == tl.arange(0, M)[None, :]
    return tl.where(diagonal, signed - tl.sum(signed, axis=1)[:, None], signed)
