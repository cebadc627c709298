"""The threshold sorters in one kernel; see `podium.topk._threshold`, whose formulas and names these are.

All values of k are solved for side by side, each in its row of a block of KP x M. The scores are not put in order: each
knows its place, and what lies next to the threshold is found by its place.

Shape legend: N rows, M slots of scores, KP slots of k.
"""

import triton.language as tl

from podium.topk.fused._loss import Output, floored, store_loss
from podium.topk.fused._math import LOG_ZERO, log_add_exp, log_sigmoid, sigmoid
from podium.topk.fused._selection import places, rank, slots
from podium.topk.fused._triton import device, kernel

LOGISTIC = tl.constexpr(0)
LAPLACE = tl.constexpr(1)
MIDWAY = tl.constexpr(2)
SPARSE = tl.constexpr(3)

_NEWTON_STEPS = tl.constexpr(7)
_SPARSE_STEPS = tl.constexpr(14)
_LOG_2 = tl.constexpr(0.6931471805599453)
_TINY = tl.constexpr(1e-37)


@kernel
def threshold_loss(
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
    scale: tl.tensor,
    power: tl.tensor,
    M: tl.constexpr,
    KP: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    ALIGN: tl.constexpr,
    TOP1: tl.constexpr,
    GRADIENT: tl.constexpr,
    FAMILY: tl.constexpr,
) -> None:
    """Do one row: logits (N, n), labels (N,), weights (N, K) or (K,), ks (KP,).

    row_stride and n count in units of ALIGN.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride * ALIGN
    ranked = rank(logits, tl.load(labels + row), n * ALIGN, m, M, C, R, TILE)
    k = tl.load(ks + tl.arange(0, KP))
    certain = k >= m
    k = tl.where(certain, 1.0, k)
    slot = tl.arange(0, M)
    counts = (slot < m)[None, :]
    best = tl.max(tl.where(slot < m, ranked.scores, -float("inf")))
    z = tl.where(slot < m, (ranked.scores - best) / scale, 0.0)
    place = places(ranked.above, M)[None, :]
    if FAMILY == LOGISTIC:
        t = _logistic_threshold(z[None, :], place, counts, k)
    elif FAMILY == LAPLACE:
        t = _laplace_threshold(z, ranked.above, m, k, M)
    elif FAMILY == MIDWAY:
        t = (_at(z[None, :], place, k.to(tl.int32) - 1) + _at(z[None, :], place, k.to(tl.int32))) / 2
    else:
        t = _sparse_threshold(z[None, :], place, counts, k, power)

    distance = z[None, :] - t[:, None]
    own = tl.sum(tl.where(slot == 0, z, 0.0)) - t
    if FAMILY == LAPLACE:
        tail = tl.exp(-tl.abs(own))
        log_c = tl.where(own < 0, own - _LOG_2, _log_one_minus(tail / 2))
        hazard = tl.where(own < 0, 1.0, tail / (2 - tail))
        share = _softmax(-tl.abs(distance), counts)
    elif FAMILY == SPARSE:
        log_c, hazard = _sparse_membership(own, power)
        density = tl.where(counts, _sparse_density(distance, power), 0.0)
        total = tl.sum(density, axis=1)[:, None]
        share = tl.where(total > 0, density / tl.where(total > 0, total, 1.0), 0.0)
    else:
        log_c, hazard = log_sigmoid(own), sigmoid(-own)
        if FAMILY == LOGISTIC:
            share = _softmax(log_sigmoid(distance) + log_sigmoid(-distance), counts)
        else:
            last = k.to(tl.int32)[:, None]
            share = tl.where((place == last - 1) | (place == last), 0.5, 0.0)
    slope = (tl.where(slot == 0, 1.0, 0.0)[None, :] - share) * (hazard / scale)[:, None]
    # The top m of m scores hold the label for certain.
    log_c = tl.where(certain, 0.0, log_c)
    slope = tl.where(certain[:, None], 0.0, slope)
    output = Output(losses, gradients, kept_classes)
    store_loss(output, row, weights + row * weight_stride, ranked, log_c, slope, m, K, M, KP, TOP1, GRADIENT)


@device
def _at(z: tl.tensor, place: tl.tensor, wanted: tl.tensor) -> tl.tensor:
    """Return the score at a place for each k, (KP,); zero if there is none."""
    return tl.sum(tl.where(place == wanted[:, None], z, 0.0), axis=1)


@device
def _softmax(x: tl.tensor, counts: tl.tensor) -> tl.tensor:
    x = tl.where(counts, x, -float("inf"))
    exponentials = tl.exp(x - tl.max(x, axis=1)[:, None])
    return exponentials / tl.sum(exponentials, axis=1)[:, None]


@device
def _logistic_threshold(z: tl.tensor, place: tl.tensor, counts: tl.tensor, k: tl.tensor) -> tl.tensor:
    """Solve sum_i sigmoid(z_i - t) = k by Newton, in logarithms, (KP,)."""
    whole = k.to(tl.int32)
    fraction = k - whole.to(tl.float32)
    log_fraction = tl.where(fraction > 0, tl.log(tl.maximum(fraction, _TINY)), LOG_ZERO)
    last_in, first_out = _at(z, place, whole - 1), _at(z, place, whole)
    in_top = place < whole[:, None]
    below_top = counts & (place >= whole[:, None])
    t = (last_in + first_out) / 2
    for _ in range(_NEWTON_STEPS):
        # How far a score is on the wrong side: its membership below the top k, what it misses in the top k.
        wrong = tl.where(in_top, t[:, None] - z, z - t[:, None])
        log_wrong, elasticity = log_sigmoid(wrong), sigmoid(-wrong)
        most_excess, most_missing = log_sigmoid(first_out - t), log_sigmoid(t - last_in)
        excess = tl.where(below_top, tl.exp(log_wrong - most_excess[:, None]), 0.0)
        missing = tl.where(in_top, tl.exp(log_wrong - most_missing[:, None]), 0.0)
        total_excess, total_missing = tl.sum(excess, axis=1), tl.sum(missing, axis=1)
        log_excess = most_excess + tl.log(total_excess)
        log_missing = most_missing + tl.log(total_missing)
        target = tl.where(fraction > 0, log_add_exp(log_missing, log_fraction), log_missing)
        slope = tl.sum(excess * elasticity, axis=1) / total_excess
        slope += tl.exp(log_missing - target) * tl.sum(missing * elasticity, axis=1) / total_missing
        t += (log_excess - target) / slope
    return t


@device
def _laplace_threshold(z: tl.tensor, above: tl.tensor, m: tl.tensor, k: tl.tensor, M: tl.constexpr) -> tl.tensor:
    """Find the gap between scores that holds t, and solve a quadratic there, (KP,)."""
    place = tl.arange(0, M)
    z = tl.gather(z, slots(above, place), 0)
    z = tl.where(place < m, z, LOG_ZERO)
    log_above = tl.associative_scan(tl.where(place < m, -z, LOG_ZERO), 0, log_add_exp)
    log_below = tl.associative_scan(z, 0, log_add_exp, reverse=True)
    # The sum of memberships were t at score i.
    at_score = place + 0.5 - tl.exp(log_above + z) / 2 + tl.exp(log_below - z) / 2
    count = tl.sum(((place < m)[None, :] & (at_score[None, :] < k[:, None])).to(tl.int32), axis=1)
    log_a = tl.where(count > 0, _at(log_above[None, :], place[None, :], count - 1), LOG_ZERO)
    log_b = tl.where(count < m, _at(log_below[None, :], place[None, :], count), LOG_ZERO)
    surplus = count.to(tl.float32) - k
    # The root of a x^2 - 2 surplus x - b, in the form that does not cancel.
    log_surplus = tl.where(surplus == 0, LOG_ZERO, tl.log(tl.maximum(tl.abs(surplus), _TINY)))
    log_root = log_add_exp(log_surplus, log_add_exp(2 * log_surplus, log_a + log_b) / 2)
    return tl.where(surplus >= 0, log_root - log_a, log_b - log_root)


@device
def _log_one_minus(x: tl.tensor) -> tl.tensor:
    """Return log(1 - x) for x in [0, 1/2]."""
    rest = 1 - x
    rounded = 1 - rest
    return tl.where(rounded == 0, -x, tl.log(rest) * (x / tl.where(rounded == 0, 1.0, rounded)))


@device
def _sparse_threshold(z: tl.tensor, place: tl.tensor, counts: tl.tensor, k: tl.tensor, power: tl.tensor) -> tl.tensor:
    """Solve sum_i clip(z_i - t, 0, 1)^power = k by Newton within bounds, (KP,)."""
    whole = k.to(tl.int32)
    fraction = k - whole.to(tl.float32)
    last_in = tl.where(fraction > 0, whole, whole - 1)
    low, high = _at(z, place, last_in) - 1, _at(z, place, whole)
    in_top = place < whole[:, None]
    t = (low + high) / 2
    for _ in range(_SPARSE_STEPS):
        distance = z - t[:, None]
        member = _sparse_member(distance, power)
        surplus = tl.sum(tl.where(counts, tl.where(in_top, member - 1, member), 0.0), axis=1) - fraction
        low, high = tl.where(surplus >= 0, t, low), tl.where(surplus <= 0, t, high)
        density = tl.sum(tl.where(counts, _sparse_density(distance, power), 0.0), axis=1)
        newton = t + surplus / tl.maximum(density, _TINY)
        t = tl.where((density > 0) & (newton >= low) & (newton <= high), newton, (low + high) / 2)
    return t


@device
def _sparse_member(z: tl.tensor, power: tl.tensor) -> tl.tensor:
    inside = tl.minimum(tl.maximum(z, _TINY), 1.0)
    return tl.where(z > 0, tl.exp2(power * tl.log2(inside)), 0.0)


@device
def _sparse_density(z: tl.tensor, power: tl.tensor) -> tl.tensor:
    inside = tl.minimum(tl.maximum(z, _TINY), 1.0)
    return tl.where((z > 0) & (z < 1), power * tl.exp2((power - 1) * tl.log2(inside)), 0.0)


@device
def _sparse_membership(z: tl.tensor, power: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return log F(z) and f(z) / F(z), (KP,)."""
    log_c, hazard = floored(_sparse_member(z, power), _sparse_density(z, power)[:, None])
    return log_c, tl.sum(hazard, axis=1)
