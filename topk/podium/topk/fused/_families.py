"""Which kernel serves a sorter, and what it is told.

Shape legend: N rows, n classes, K values of k.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from podium.topk._df_top_k import DFTopK
from podium.topk._distributions import Distribution
from podium.topk._lap_sum import LapSum
from podium.topk._network import SortingNetwork
from podium.topk._optimal_transport import OptimalTransport
from podium.topk._schedule import prune
from podium.topk._sigmoid import Sigmoid
from podium.topk._sorter import ClosedFormSorter
from podium.topk._sparse import Sparse
from podium.topk.fused._laws import LAWS
from podium.topk.fused._loss import Output
from podium.topk.fused._network import SCRATCH, UPPER, network_loss
from podium.topk.fused._threshold import LAPLACE, LOGISTIC, MIDWAY, SPARSE, threshold_loss
from podium.topk.fused._tiling import Tiling, power_of_two

# Without the option Triton 3.9 warns that its default will change.
OPTIONS = {"enable_fp_fusion": True}


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


Launch = Callable[[Any, Problem, Output], None]


def find(sorter: ClosedFormSorter, ks: tuple[float, ...]) -> Launch | None:
    """Return what launches the kernel for a sorter; None if there is none.

    A subclass may compute something else than its parent, so that only the networks, whose families differ by their
    layers, are known by their base class.
    """
    if ks == (1,) and not sorter.exact_top1:
        return _launch_softmax
    if type(sorter).terms is SortingNetwork.terms:
        return _launch_network
    return _BY_FAMILY.get(type(sorter))


def _launch_softmax(sorter: ClosedFormSorter, problem: Problem, output: Output) -> None:
    # Nobody but the softmax over the kept scores is asked: a network without comparators.
    table = _table(None, problem.m, 0, problem.tiling.constants["M"], problem.logits.device)
    _run(network_loss, problem, output, table, output.losses, 0, 1.0, 0.0, LAW=LAWS[Distribution.LOGISTIC])


def _launch_network(sorter: SortingNetwork, problem: Problem, output: Output) -> None:
    device = problem.logits.device
    largest = max((int(k) for k in problem.ks if k < problem.m), default=0)
    table = _table(type(sorter), problem.m, largest, problem.tiling.constants["M"], device)
    scratch = output.losses
    if problem.gradient:
        scratch = torch.empty((len(problem.labels), SCRATCH * table.numel()), dtype=torch.float32, device=device)
    law = LAWS[Distribution(sorter.distribution)]
    steepness, art_lambda = float(sorter.steepness), float(sorter.art_lambda)
    _run(network_loss, problem, output, table, scratch, len(table), steepness, art_lambda, LAW=law)


def _launch_smooth(sorter: Any, problem: Problem, output: Output) -> None:
    _run(threshold_loss, problem, output, float(sorter.scale), 1.0, FAMILY=_THRESHOLDS[type(sorter)])


def _launch_sparse(sorter: Sparse, problem: Problem, output: Output) -> None:
    _run(threshold_loss, problem, output, float(sorter.scale), 1 / (sorter.p - 1), FAMILY=SPARSE.value)


_THRESHOLDS = {
    Sigmoid: LOGISTIC.value,
    OptimalTransport: LOGISTIC.value,
    LapSum: LAPLACE.value,
    DFTopK: MIDWAY.value,
}
_BY_FAMILY: dict[type, Launch] = dict.fromkeys(_THRESHOLDS, _launch_smooth) | {Sparse: _launch_sparse}


def _run(kernel: Any, problem: Problem, output: Output, *arguments: Any, **constants: int) -> None:
    kernel[(len(problem.labels),)](
        problem.logits,
        problem.labels,
        problem.weights,
        _values_of_k(problem.ks, problem.logits.device),
        output,
        problem.logits.stride(0),
        problem.weights.stride(0) if problem.weights.dim() == 2 else 0,
        problem.logits.shape[-1],
        problem.m,
        len(problem.ks),
        *arguments,
        KP=power_of_two(len(problem.ks)),
        TOP1=problem.top1,
        GRADIENT=problem.gradient,
        num_warps=problem.tiling.warps,
        **problem.tiling.constants,
        **constants,
        **OPTIONS,
    )


@lru_cache(maxsize=64)
def _values_of_k(ks: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the values of k, float32; idle slots repeat the last one, so that what they compute is finite."""
    count = power_of_two(len(ks))
    padded = [*ks, *[ks[-1] if ks else 1.0] * (count - len(ks))]
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
