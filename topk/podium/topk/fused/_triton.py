"""Triton's decorators with types, since Triton has none.

`device` marks a function that other Triton functions call, `kernel` one that is launched: `name[(programs,)](...)`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import triton

F = TypeVar("F", bound=Callable[..., Any])

device: Callable[[F], F] = triton.jit

# One compiled kernel serves all sizes: what could profit from a known size takes it as a constexpr.
_SIZES = ("row_stride", "weight_stride", "upstream_stride", "n", "m", "K", "L", "degree")


def kernel(function: Callable[..., None]) -> Any:
    """Make a function a kernel."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return triton.jit(do_not_specialize=[name for name in _SIZES if name in names])(function)
