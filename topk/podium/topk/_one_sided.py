"""A gradient that never asks for less of the label.

Relaxed sorters are not monotone: NeuralSort and SoftSort lower c_k for a label that leads already, and even a sorting
network can. Where that happens the loss would be improved by pushing the label down, or, which is the same up to a
shift, its rivals up. Such a sample has nothing to learn from and is left alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def one_sided(losses: Callable[[Tensor], Tensor], scores: Tensor, labels: Tensor) -> Tensor:
    """Return `losses(scores)` with zero gradient for samples whose loss rises with the label's own score.

    Args:
        losses: From scores (..., m) to one loss per sample (...), each sample on its own.
        scores: Scores, (..., m).
        labels: Place of the label, (...).
    """
    if torch.is_grad_enabled() and scores.requires_grad:
        result: Tensor = _OneSided.apply(scores, labels, losses)
        return result
    return losses(scores)


class _OneSided(torch.autograd.Function):
    """Takes the gradient already in forward, where its sign is still that of the loss and not of what is made of it."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            leaf = scores.detach().requires_grad_()
            result = losses(leaf)
            (gradient,) = torch.autograd.grad(result.sum(), leaf)
        misled = gradient.gather(-1, labels.unsqueeze(-1)) > 0
        ctx.save_for_backward(gradient.masked_fill_(misled, 0.0))
        return result.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream.unsqueeze(-1) * gradient, None, None
