"""Values with a gradient that was worked out by hand.

Every family knows the derivative of what it answers in closed form, at little more than the cost of the answer. The
values are therefore computed without a tape, their gradient beside them, and both meet here.
"""

from typing import Any

import torch
from torch import Tensor

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
    result: Tensor = function.apply(logits, values, gradient, classes)[0]
    return result


def wants_gradient(logits: Tensor) -> bool:
    """Return whether anybody could ask for a gradient."""
    return torch.is_grad_enabled() and logits.requires_grad


class _WithGradient(torch.autograd.Function):
    """The values, and an empty anchor: what hangs on the logits without holding them in memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, values: Tensor, gradient: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        return values.clone(), values.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        logits, _, gradient, classes = inputs
        ctx.save_for_backward(gradient, classes, output[1])
        # The logits themselves are not needed, and may be large.
        ctx.shape, ctx.dtype = logits.shape, logits.dtype

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, classes, anchor = ctx.saved_tensors
        with torch.no_grad():
            zeros = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
            result = zeros.scatter(-1, classes, _pulled(upstream, gradient, classes).to(ctx.dtype))
        return _differentiable_once(result, upstream, anchor), None, None, None


class _WithGradientAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor, gradient: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        # Nobody else has the values, so that no copy is needed; but torch must not take them for an argument.
        output = values.detach(), values.new_empty(0)
        _WithGradient.setup_context(ctx, (logits, values, gradient, classes), output)
        return output

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        if torch._C._functorch.is_legacy_batchedtensor(upstream) or torch._C._functorch.is_batchedtensor(upstream):
            # Many backward passes at once, as for a Jacobian, which one tensor of zeros cannot hold.
            return _WithGradient.backward(ctx, upstream, _)
        gradient, classes, anchor = ctx.saved_tensors
        with torch.no_grad():
            result = None
            if gradient.shape == classes.shape:
                result = fused.scatter(upstream, gradient, classes, ctx.shape, ctx.dtype)
            if result is None:
                zeros = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
                result = zeros.scatter_(-1, classes, _pulled(upstream, gradient, classes).to(ctx.dtype))
        return _differentiable_once(result, upstream, anchor), None, None, None


def _differentiable_once(result: Tensor, upstream: Tensor, anchor: Tensor) -> Tensor:
    """Return the gradient, whose derivative is refused; a compiler refuses second derivatives by itself.

    torch's `once_differentiable` refuses only where `upstream` has a gradient, which that of a loss has not.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return result
    refusing: Tensor = _Refusing.apply(result, upstream, anchor)
    return refusing


class _Refusing(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, upstream: Tensor, anchor: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "the gradient of this top-k loss is a closed form without a derivative of its own, so there are no second "
            "derivatives and no gradient penalties through it; use softmax or a sorter of your own for those."
        )


def _pulled(upstream: Tensor, gradient: Tensor, classes: Tensor) -> Tensor:
    """Return the gradient of the kept logits, (..., m)."""
    pulled = upstream.unsqueeze(-1) * gradient
    return pulled.flatten(classes.dim() - 1, -2).sum(-2) if pulled.dim() > classes.dim() else pulled
