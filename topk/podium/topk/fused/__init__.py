"""The loss in one kernel and its gradient in another, written in Triton, for tensors on a CUDA device.

A loss of torch operations reads and writes memory dozens of times where the data are read once and the gradient is
written once. Whatever has no kernel here is computed by torch, to the same results within float32 rounding.

Triton is loaded when the first CUDA tensor comes, never on import; it compiles for some seconds when a family meets a
new size, and remembers on disk. With TRITON_INTERPRET=1 in the environment its interpreter runs the kernels on the CPU,
which is how they are tested where there is no GPU.

Shape legend: `...` any leading dimensions, n classes, m kept scores, K values of k.
"""

import os
import warnings
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from podium.topk._eager import is_traced

if TYPE_CHECKING:
    from podium.topk._sorter import ClosedFormSorter

# Ampere, the first that computes with bfloat16.
_LEAST_CAPABILITY = (8, 0)
_DTYPES = frozenset({torch.float32, torch.float16, torch.bfloat16})


def losses(
    sorter: "ClosedFormSorter",
    logits: Tensor,
    labels: Tensor,
    *,
    m: int,
    ks: tuple[float, ...],
    weights: Tensor,
    gradient: bool,
) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """Return the losses of samples, their compact gradient and its classes.

    Args:
        sorter: The family.
        logits: Scores of all classes, (..., n).
        labels: True classes, (...), int64. The loss of a label outside of [0, n) is NaN.
        m: How many scores to keep.
        ks: Increasing values of k.
        weights: P_K, (..., K) or (K,).
        gradient: Whether the gradient is wanted.

    Returns:
        Losses, (...) float32; their derivative by the kept logits, (..., m) float32, or None if it is not wanted; the
        classes of the kept logits, (..., m) int64. None if there is no kernel for this sorter, size, type or device.
    """
    if logits.dtype not in _DTYPES or not _served(logits, labels, weights):
        return None
    from podium.topk.fused import _launch

    return _launch.losses(sorter, logits, labels, m=m, ks=ks, weights=weights, gradient=gradient)


def scatter(
    upstream: Tensor, gradient: Tensor, classes: Tensor, shape: torch.Size, dtype: torch.dtype
) -> Tensor | None:
    """Return the gradient by all logits.

    Args:
        upstream: Gradient by each loss, (...).
        gradient: Derivative of each loss by its kept logits, (..., m) float32.
        classes: The class of each kept logit, (..., m) int64.
        shape: Of the logits, (..., n).
        dtype: Of the logits.

    Returns:
        (..., n). None if there is no kernel for this type or device.
    """
    if dtype not in _DTYPES or gradient.dtype != torch.float32 or not _served(gradient, upstream, classes):
        return None
    from podium.topk.fused import _launch

    return _launch.scatter(upstream, gradient, classes, shape, dtype)


def _served(*tensors: Tensor) -> bool:
    """Return whether these have memory that a kernel can read, on a device that has kernels."""
    # First of all, since a compiler cannot trace what follows.
    if is_traced():
        return False
    if tensors[0].is_cuda:
        return all(_plain(tensor) for tensor in tensors) and _works_on(tensors[0].device.index)
    return os.environ.get("TRITON_INTERPRET") == "1" and all(_plain(tensor) for tensor in tensors)


def _plain(tensor: Tensor) -> bool:
    # Under vmap and grad of torch.func, and in subclasses, a tensor has no memory of its own.
    kind = type(tensor)
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return (kind is Tensor or kind is nn.Parameter) and not wrapped and tensor.numel() > 0


@cache
def _works_on(device: int) -> bool:
    """Return whether Triton works on this CUDA device; it needs more than to be installed, a C compiler for one."""
    if torch.version.hip or torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY or not find_spec("triton"):
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:
        message = f"podium.topk computes its losses by torch operations, which is slower: no Triton, {error!r}."
        warnings.warn(message, RuntimeWarning, stacklevel=1)
        return False
    return True
