"""From tensors to launches, and back.

Shape legend: `...` any leading dimensions, N rows, n classes, m kept scores, K values of k.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from podium.topk._sorter import ClosedFormSorter
from podium.topk.fused._families import OPTIONS, Problem, find
from podium.topk.fused._loss import Output
from podium.topk.fused._scatter import scatter_gradient
from podium.topk.fused._tiling import alignment, power_of_two, tiling

_SCATTER_BLOCK = 2048
_SCATTER_WARPS = 4


def losses(
    sorter: ClosedFormSorter,
    logits: Tensor,
    labels: Tensor,
    *,
    m: int,
    ks: tuple[float, ...],
    weights: Tensor,
    gradient: bool,
) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """Return losses, gradients and classes, or None; see `podium.topk.fused.losses`."""
    rows = logits.reshape(-1, logits.shape[-1])
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    cut = tiling(rows.shape[-1], m, rows.stride(0))
    launch = find(sorter, m, ks)
    if cut is None or launch is None or weights.dtype != torch.float32:
        return None
    top1 = ks[0] == 1 and not sorter.exact_top1
    problem = Problem(
        logits=rows,
        labels=labels.reshape(-1).contiguous(),
        weights=_weight_rows(weights, labels),
        m=m,
        ks=ks[1:] if top1 else ks,
        top1=top1,
        gradient=gradient,
        tiling=cut,
    )
    output = _output(problem)
    with _on_device_of(logits):
        launch(sorter, problem, output)
    shape = labels.shape
    compact = output.gradients.view(*shape, m) if gradient else None
    return output.losses.view(shape), compact, output.classes.view(*shape, m)


def scatter(upstream: Tensor, gradient: Tensor, classes: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return upstream times gradient at its classes, zero elsewhere; see `podium.topk.fused.scatter`."""
    n, m = shape[-1], gradient.shape[-1]
    align = alignment(n, n)
    # A mean's gradient is one number, expanded.
    upstream = upstream.reshape(-1)
    result = torch.empty(shape, dtype=dtype, device=gradient.device)
    with _on_device_of(gradient):
        scatter_gradient[(len(upstream),)](
            upstream,
            gradient.contiguous(),
            classes.contiguous(),
            result,
            upstream.stride(0),
            n // align,
            m,
            M=power_of_two(m),
            BLOCK=min(_SCATTER_BLOCK, power_of_two(n)),
            ALIGN=align,
            num_warps=_SCATTER_WARPS,
            **OPTIONS,
        )
    return result


def _output(problem: Problem) -> Output:
    count, device = problem.labels.numel(), problem.logits.device
    values = torch.empty(count, dtype=torch.float32, device=device)
    classes = torch.empty((count, problem.m), dtype=torch.int64, device=device)
    if not problem.gradient:
        return Output(values, values, classes)
    return Output(values, torch.empty((count, problem.m), dtype=torch.float32, device=device), classes)


def _weight_rows(weights: Tensor, labels: Tensor) -> Tensor:
    """Return weights as they are if all samples share them, else one row per sample."""
    if weights.dim() == 1:
        return weights.contiguous()
    return weights.expand(*labels.shape, weights.shape[-1]).reshape(-1, weights.shape[-1]).contiguous()


def _on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    # Triton launches on the current device.
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        return torch.cuda.device(tensor.device)
    return nullcontext()
