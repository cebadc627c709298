"""Logarithms that keep their digits, elementwise."""

import triton.language as tl

from podium.topk.fused._triton import device

#: Stands for log 0 and stays finite through every sum, where a true infinity would give NaN.
LOG_ZERO = tl.constexpr(-1e30)


@device
def log1p(x: tl.tensor) -> tl.tensor:
    """Return log(1 + x) for x in [0, 1]."""
    one_more = 1 + x
    # What rounding made of x, and its logarithm, differ from x and its by the same factor.
    rounded = one_more - 1
    return tl.where(rounded == 0, x, tl.log(one_more) * (x / tl.where(rounded == 0, 1.0, rounded)))


@device
def log_sigmoid(x: tl.tensor) -> tl.tensor:
    """Return log(1 / (1 + exp(-x)))."""
    return tl.minimum(x, 0.0) - log1p(tl.exp(-tl.abs(x)))


@device
def sigmoid(x: tl.tensor) -> tl.tensor:
    """Return 1 / (1 + exp(-x)), exact where it is tiny."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x > 0, 1.0, small) / (1 + small)


@device
def log_add_exp(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return log(exp(a) + exp(b)), of finite numbers."""
    return tl.maximum(a, b) + log1p(tl.exp(-tl.abs(a - b)))
