"""The comparators' laws; see `podium.topk._distributions`, whose formulas and names these are.

Triton has no arc tangent and no complementary error function that its interpreter knows, so both stand here, good to
float32 rounding.
"""

import triton.language as tl

from podium.topk._distributions import Distribution
from podium.topk.fused._triton import device

LOGISTIC = tl.constexpr(0)
LOGISTIC_PHI = tl.constexpr(1)
GAUSSIAN = tl.constexpr(2)
RECIPROCAL = tl.constexpr(3)
CAUCHY = tl.constexpr(4)
OPTIMAL = tl.constexpr(5)

LAWS = {
    Distribution.LOGISTIC: LOGISTIC.value,
    Distribution.LOGISTIC_PHI: LOGISTIC_PHI.value,
    Distribution.GAUSSIAN: GAUSSIAN.value,
    Distribution.RECIPROCAL: RECIPROCAL.value,
    Distribution.CAUCHY: CAUCHY.value,
    Distribution.OPTIMAL: OPTIMAL.value,
}

_TIE_EPSILON = tl.constexpr(1e-3)
_INVERSE_PI = tl.constexpr(0.3183098861837907)
_INVERSE_ROOT_2PI = tl.constexpr(0.3989422804014327)
_ROOT_HALF = tl.constexpr(0.7071067811865476)


@device
def swap(d: tl.tensor, steepness: tl.tensor, art_lambda: tl.tensor, LAW: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return f(-d) and f'(d), elementwise."""
    v = d * steepness
    size = tl.abs(v)
    if LAW == LOGISTIC:
        tail, other = _logistic(size)
        slope = steepness * tail * other
    elif LAW == LOGISTIC_PHI:
        base = tl.abs(d) + _TIE_EPSILON
        power = tl.exp2(-art_lambda * tl.log2(base))
        tail, other = _logistic(size * power)
        slope = steepness * tail * other * power * (1 - art_lambda * tl.abs(d) / base)
    elif LAW == GAUSSIAN:
        tail = 0.5 * erfc(size * _ROOT_HALF)
        slope = steepness * _INVERSE_ROOT_2PI * tl.exp(-0.5 * v * v)
    elif LAW == RECIPROCAL:
        tail = 1 / (size + 2)
        slope = steepness * tail * tail
    elif LAW == CAUCHY:
        tail = _cauchy_tail(size)
        slope = steepness * _INVERSE_PI / (1 + v * v)
    else:
        far = tl.maximum(size, 0.25)
        tail = tl.where(size <= 0.25, 0.5 - size, 1 / (16 * far))
        slope = steepness / (16 * far * far)
    return tl.where(v > 0, tail, 1 - tail), slope


@device
def _logistic(size: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return sigmoid(-size) and its complement for size >= 0."""
    small = tl.exp(-size)
    return small / (1 + small), 1 / (1 + small)


@device
def _cauchy_tail(size: tl.tensor) -> tl.tensor:
    """Return atan2(1, size) / pi for size >= 0, exact in the tail: an arc tangent of at most 1."""
    t = tl.minimum(size, 1 / tl.maximum(size, 1.0))
    angle = t * _arc_tangent_over_t(t * t) * _INVERSE_PI
    return tl.where(size > 1, angle, 0.5 - angle)


@device
def _arc_tangent_over_t(s: tl.tensor) -> tl.tensor:
    """Return atan(t) / t for s = t^2 in [0, 1]: a polynomial fitted at Chebyshev nodes."""
    p = 0.0028340643
    p = p * s - 0.0160050305
    p = p * s + 0.0425876075
    p = p * s - 0.0749544544
    p = p * s + 0.106367541
    p = p * s - 0.142025705
    p = p * s + 0.199924836
    p = p * s - 0.333330668
    return p * s + 0.999999984


@device
def erfc(x: tl.tensor) -> tl.tensor:
    """Return the complementary error function for x >= 0, to a relative error of 1e-6.

    As t exp(-x^2 + P(t)) with t = 1 / (1 + x / 2), after Numerical Recipes; P is fitted anew.
    """
    t = 1 / (1 + 0.5 * x)
    p = 0.154191732
    p = p * t - 0.731059313
    p = p * t + 1.27436161
    p = p * t - 0.851879418
    p = p * t + 0.0475086048
    p = p * t - 0.0660282746
    p = p * t + 0.0572463498
    p = p * t + 0.381963909
    p = p * t + 0.999168813
    p = p * t - 1.26547384
    return t * tl.exp(p - x * x)
