"""From tensors to launches.

Shape legend: `...` any leading dimensions, N rows, n classes, m kept scores, K values of k.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from podium.topk._distributions import Distribution
from podium.topk._network import SortingNetwork
from podium.topk._schedule import prune
from podium.topk._sorter import ClosedFormSorter
from podium.topk.fused._laws import LAWS
from podium.topk.fused._loss import Output
from podium.topk.fused._network import SCRATCH, UPPER, network_loss
from podium.topk.fused._scatter import scatter_gradient
from podium.topk.fused._tiling import Tiling, alignment, power_of_two, tiling

# Without the option Triton 3.9 warns that its default will change.
_OPTIONS = {"enable_fp_fusion": True}
_SCATTER_BLOCK = 2048
_SCATTER_WARPS = 4


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What all families are asked.

    Attributes:
        logits: (N, n), neighbours side by side.
        labels: (N,) int64.
        weights: (N, K) or (K,) float32.
        m: How many scores to keep.
        ks: The values of k that the family answers; without the 1 that the softmax answers.
        top1: Whether the softmax over the kept scores answers k = 1.
        gradient: Whether the gradient is wanted.
        tiling: How rows are read.
    """

    logits: Tensor
    labels: Tensor
    weights: Tensor
    m: int
    ks: tuple[float, ...]
    top1: bool
    gradient: bool
    tiling: Tiling


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
    n = logits.shape[-1]
    rows = logits.reshape(-1, n)
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    cut = tiling(n, m, rows.stride(0))
    if cut is None or weights.dtype != torch.float32:
        return None
    top1 = ks[0] == 1 and not sorter.exact_top1
    problem = Problem(
        logits=rows,
        labels=labels.reshape(-1),
        weights=_weight_rows(weights, labels),
        m=m,
        ks=ks[1:] if top1 else ks,
        top1=top1,
        gradient=gradient,
        tiling=cut,
    )
    output = _output(problem)
    with _on_device_of(logits):
        if not _launch(sorter, problem, output):
            return None
    shape = labels.shape
    compact = output.gradients.view(*shape, m) if gradient else None
    return output.losses.view(shape), compact, output.classes.view(*shape, m)


def scatter(upstream: Tensor, gradient: Tensor, classes: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return upstream times gradient at its classes, zero elsewhere; see `podium.topk.fused.scatter`."""
    n, m = shape[-1], gradient.shape[-1]
    result = torch.empty(shape, dtype=dtype, device=gradient.device)
    with _on_device_of(gradient):
        scatter_gradient[(upstream.numel(),)](
            upstream.reshape(-1),
            gradient.contiguous(),
            classes.contiguous(),
            result,
            n,
            m,
            M=power_of_two(m),
            BLOCK=min(_SCATTER_BLOCK, power_of_two(n)),
            ALIGN=alignment(n, n),
            num_warps=_SCATTER_WARPS,
            **_OPTIONS,
        )
    return result


def _launch(sorter: ClosedFormSorter, problem: Problem, output: Output) -> bool:
    if not problem.ks or isinstance(sorter, SortingNetwork):
        _launch_network(sorter, problem, output)
        return True
    return False


def _launch_network(sorter: ClosedFormSorter, problem: Problem, output: Output) -> None:
    device = problem.logits.device
    if isinstance(sorter, SortingNetwork):
        law = Distribution(sorter.distribution)
        steepness, art_lambda = float(sorter.steepness), float(sorter.art_lambda)
        uncertain = [int(k) for k in problem.ks if k < problem.m]
        table = _table(type(sorter), problem.m, max(uncertain, default=0), problem.tiling.constants["M"], device)
    else:
        # Nobody but the softmax is asked: a network without comparators.
        law, steepness, art_lambda = Distribution.LOGISTIC, 1.0, 0.0
        table = _table(None, problem.m, 0, problem.tiling.constants["M"], device)
    count = problem.labels.numel()
    scratch = output.losses
    if problem.gradient:
        scratch = torch.empty((count, SCRATCH * table.numel()), dtype=torch.float32, device=device)
    network_loss[(count,)](
        problem.logits,
        problem.labels,
        problem.weights,
        _values_of_k(problem.ks, device),
        table,
        scratch,
        output,
        problem.logits.stride(0),
        problem.weights.stride(0) if problem.weights.dim() == 2 else 0,
        problem.logits.shape[-1],
        problem.m,
        len(problem.ks),
        table.shape[0],
        steepness,
        art_lambda,
        KP=power_of_two(len(problem.ks)),
        TOP1=problem.top1,
        GRADIENT=problem.gradient,
        LAW=LAWS[law],
        num_warps=problem.tiling.warps,
        **problem.tiling.constants,
        **_OPTIONS,
    )


def _output(problem: Problem) -> Output:
    count, device = problem.labels.numel(), problem.logits.device
    kept = (count, problem.m)
    values = torch.empty(count, dtype=torch.float32, device=device)
    if not problem.gradient:
        return Output(values, values, torch.empty(kept, dtype=torch.int64, device=device))
    gradients = torch.empty(kept, dtype=torch.float32, device=device)
    return Output(values, gradients, torch.empty(kept, dtype=torch.int64, device=device))


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


@lru_cache(maxsize=64)
def _values_of_k(ks: tuple[float, ...], device: torch.device) -> Tensor:
    padded = [*ks, *[0.0] * (power_of_two(len(ks)) - len(ks))]
    return _constant(padded, torch.float32, device)


@lru_cache(maxsize=64)
def _table(family: type[SortingNetwork] | None, m: int, k: int, slots: int, device: torch.device) -> Tensor:
    """Return every lane's partner in every layer, (L, slots) int32; see `podium.topk.fused._network`."""
    layers = prune(family.layers(m, k), m, k) if family and k else []
    rows = []
    for layer in layers:
        row = list(range(slots))
        for low, high in layer:
            row[low], row[high] = high, low + UPPER
        rows.append(row)
    return _constant(rows, torch.int32, device).view(len(layers), slots)


def _constant(values: list[float] | list[list[int]], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached tensors outlive the call; made under inference_mode, they would be refused by a training step.
    with torch.inference_mode(mode=False):
        return torch.tensor(values, dtype=dtype, device=device)
