"""The sorting networks in one kernel: selection, comparators, their gradient and the loss.

Every lane works out its own side of a comparator. With x the lane's value or label mass, x' its partner's and q the
swap probability, x becomes (1 - q) x + q x'. On the way back a gradient (g, h) by (value, mass) becomes

    g + (q - s) (g' - g) - t (h' - h),    h + q (h' - h),

where s and t are the law's slope times the difference x' - x of the values and of the masses. The way there leaves q,
q - s and t behind, so that the way back is gathers and products. An idle lane is its own partner.

Shape legend: N rows, M lanes or slots of scores, L layers, KP slots of k.
"""

import triton.language as tl

from podium.topk.fused._laws import swap
from podium.topk.fused._loss import Output, floored, monotone, store_loss
from podium.topk.fused._selection import Ranked, places, rank, slots
from podium.topk.fused._triton import device, kernel

#: Numbers per lane and layer that the way there leaves for the way back.
SCRATCH = 3
#: In the table of partners, on top of the partner's lane where this lane receives the larger value.
UPPER = 1 << 16
_SCRATCH = tl.constexpr(SCRATCH)
_UPPER = tl.constexpr(UPPER)


@kernel
def network_loss(
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
    table: tl.tensor,
    scratch: tl.tensor,
    L: tl.tensor,
    steepness: tl.tensor,
    art_lambda: tl.tensor,
    M: tl.constexpr,
    KP: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    ALIGN: tl.constexpr,
    TOP1: tl.constexpr,
    GRADIENT: tl.constexpr,
    LAW: tl.constexpr,
) -> None:
    """Do one row: logits (N, n), labels (N,), weights (N, K) or (K,), ks (KP,), table (L, M), scratch (N, L, 3, M).

    row_stride and n count in units of ALIGN.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride * ALIGN
    ranked = rank(logits, tl.load(labels + row), n * ALIGN, m, M, C, R, TILE)
    k = tl.load(ks + tl.arange(0, KP)).to(tl.int32)
    scratch += row * L * (_SCRATCH * M)
    mass = _down(ranked, m, table, scratch, L, steepness, art_lambda, M, GRADIENT, LAW)
    place = m - 1 - tl.arange(0, M)
    in_top = (place >= 0)[None, :] & (place[None, :] < k[:, None])
    # Rounding may carry the sum of a whole row an ulp above one.
    c = tl.minimum(tl.sum(tl.where(in_top, mass[None, :], 0.0), axis=1), 1.0)
    slope = tl.zeros((KP, M), tl.float32)
    if GRADIENT:
        # Its numbers were written by other threads.
        tl.debug_barrier()
        by_lane = _up(in_top, table, scratch, L, M, KP)
        lane = tl.maximum(m - 1 - places(ranked.above, M), 0)
        slope = tl.gather(by_lane, tl.broadcast_to(lane[None, :], (KP, M)), 1)
    log_c, slope = floored(c, slope)
    # The top m of m scores hold the label for certain.
    log_c = tl.where(k < m, log_c, 0.0)
    slope = tl.where((k < m)[:, None], monotone(slope, tl.arange(0, M)), 0.0)
    output = Output(losses, gradients, kept_classes)
    store_loss(output, row, weights + row * weight_stride, ranked, log_c, slope, m, K, M, KP, TOP1, GRADIENT)


@device
def _down(
    ranked: Ranked,
    m: tl.tensor,
    table: tl.tensor,
    scratch: tl.tensor,
    L: tl.tensor,
    steepness: tl.tensor,
    art_lambda: tl.tensor,
    M: tl.constexpr,
    GRADIENT: tl.constexpr,
    LAW: tl.constexpr,
) -> tl.tensor:
    """Send values and label mass through the network; return the mass in each lane, (M,)."""
    # With two dimensions Triton gives every warp all lanes, so that a gather stays within the warp.
    lane = tl.arange(0, M)[None, :]
    place = m - 1 - lane
    slot = tl.where(place < 0, 0, slots(ranked.above, place))
    value = tl.gather(ranked.scores[None, :], slot, 1)
    mass = tl.where(place == ranked.above, 1.0, 0.0)
    for layer in range(L):
        entry = tl.load(table + layer * M + lane)
        partner = entry & (_UPPER - 1)
        upper = entry >= _UPPER
        other_value, other_mass = tl.gather(value, partner, 1), tl.gather(mass, partner, 1)
        value_gap, mass_gap = other_value - value, other_mass - mass
        q, slope = swap(tl.where(upper, -value_gap, value_gap), steepness, art_lambda, LAW)
        if GRADIENT:
            pull = tl.where(upper, -slope, slope)
            left = scratch + layer * (_SCRATCH * M) + lane
            tl.store(left, q)
            tl.store(left + M, q - pull * value_gap)
            tl.store(left + 2 * M, pull * mass_gap)
        # A weighted mean of two masses cannot turn negative by rounding, which mass plus q times gap can.
        value = (1 - q) * value + q * other_value
        mass = (1 - q) * mass + q * other_mass
    return tl.reshape(mass, (M,))


@device
def _up(
    in_top: tl.tensor, table: tl.tensor, scratch: tl.tensor, L: tl.tensor, M: tl.constexpr, KP: tl.constexpr
) -> tl.tensor:
    """Return the derivative of every c_k by the values that entered the lanes, (KP, M)."""
    lane = tl.broadcast_to(tl.arange(0, M)[None, :], (KP, M))
    by_value = tl.zeros((KP, M), tl.float32)
    by_mass = tl.where(in_top, 1.0, 0.0)
    for back in range(L):
        layer = L - 1 - back
        partner = tl.load(table + layer * M + lane) & (_UPPER - 1)
        left = scratch + layer * (_SCRATCH * M) + lane
        value_gap = tl.gather(by_value, partner, 1) - by_value
        mass_gap = tl.gather(by_mass, partner, 1) - by_mass
        by_value += tl.load(left + M) * value_gap - tl.load(left + 2 * M) * mass_gap
        by_mass += tl.load(left) * mass_gap
    return by_value
