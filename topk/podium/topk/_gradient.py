"""Values with a gradient that was worked out by hand.

Every family knows the derivative of what it answers in closed form, at little more than the cost of the answer. The
values are therefore computed without a tape, their gradient beside them, and both meet here.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from podium.topk import fused


def with_gradient(logits: Tensor, values: Tensor, gradient: Tensor, classes: Tensor) -> Tensor:
    """Return `values`, differentiable in `logits`.

    Args:
        logits: What to be differentiated by, (..., n).
        values: One number per sample and entry, (..., *entries).
        gradient: Derivative of each value by the kept logits, (..., *entries, m).
        classes: The class of each kept logit, (..., m), each class at most once.

    Returns:
        The values. A second derivative is refused, not silently zero.
    """
    # Transforms and compilers need the function below in two parts, whose arguments torch then matches with its
    # signature in every call, at the price of a whole small loss.
    in_parts = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    function = _WithGradient if in_parts else _WithGradientAtOnce
    result: Tensor = function.apply(logits, values, gradient, classes)
    return result


def wants_gradient(logits: Tensor) -> bool:
    """Return whether anybody could ask for a gradient."""
    return torch.is_grad_enabled() and logits.requires_grad


class _WithGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, values: Tensor, gradient: Tensor, classes: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        logits, _, gradient, classes = inputs
        ctx.save_for_backward(gradient, classes)
        # The logits themselves are not needed, and may be large.
        ctx.shape, ctx.dtype = logits.shape, logits.dtype

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, classes = ctx.saved_tensors
        zeros = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
        return zeros.scatter(-1, classes, _pulled(upstream, gradient, classes).to(ctx.dtype)), None, None, None


class _WithGradientAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor, gradient: Tensor, classes: Tensor) -> Tensor:
        _WithGradient.setup_context(ctx, (logits, values, gradient, classes), values)
        # Nobody else has the values, so that no copy is needed; but torch must not take them for an argument.
        return values.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, classes = ctx.saved_tensors
        result = None
        if gradient.shape == classes.shape:
            result = fused.scatter(upstream, gradient, classes, ctx.shape, ctx.dtype)
        if result is None:
            zeros = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
            result = zeros.scatter_(-1, classes, _pulled(upstream, gradient, classes).to(ctx.dtype))
        return result, None, None, None


def _pulled(upstream: Tensor, gradient: Tensor, classes: Tensor) -> Tensor:
    """Return the gradient of the kept logits, (..., m)."""
    pulled = upstream.unsqueeze(-1) * gradient
    return pulled.flatten(classes.dim() - 1, -2).sum(-2) if pulled.dim() > classes.dim() else pulled
