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
from podium.topk._neural_sort import NeuralSort
from podium.topk._optimal_transport import OptimalTransport
from podium.topk._schedule import prune
from podium.topk._sigmoid import Sigmoid
from podium.topk._soft_sort import SoftSort
from podium.topk._sorter import ClosedFormSorter
from podium.topk._sparse import Sparse
from podium.topk._subset import Subset
from podium.topk.fused import _network, _subset
from podium.topk.fused._laws import LAWS
from podium.topk.fused._loss import Output
from podium.topk.fused._network import UPPER, network_loss
from podium.topk.fused._rows import NEURAL, SOFT, rows_loss
from podium.topk.fused._subset import subset_loss
from podium.topk.fused._threshold import LAPLACE, LOGISTIC, MIDWAY, SPARSE, threshold_loss
from podium.topk.fused._tiling import Tiling, power_of_two

# Without the option Triton 3.9 warns that its default will change.
OPTIONS = {"enable_fp_fusion": True}
# The subset sorter's steps grow with k^2 and wait for one another.
_LARGEST_SUBSET = 32
# NeuralSort and SoftSort hold a number for each score, rank and k in registers.
_LARGEST_ROWS = 1 << 14


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

    @property
    def largest_open_k(self) -> int:
        """Return the largest k that not even a hopeless label is certain of; 0 if there is none."""
        return max((int(k) for k in self.ks if k < self.m), default=0)


Launch = Callable[[Any, Problem, Output], None]


def find(sorter: ClosedFormSorter, m: int, ks: tuple[float, ...]) -> Launch | None:
    """Return what launches the kernel for a sorter; None if there is none that is worth it.

    A subclass may compute something else than its parent, so that only the networks, whose families differ by their
    layers, are known by their base class.
    """
    if ks == (1,) and not sorter.exact_top1:
        return _launch_softmax
    if type(sorter).terms is SortingNetwork.terms:
        return _launch_network
    launch = _BY_FAMILY.get(type(sorter))
    if launch is _launch_subset and ks[-1] > _LARGEST_SUBSET:
        return None
    if launch is _launch_rows and power_of_two(m) * power_of_two(int(ks[-1])) * power_of_two(len(ks)) > _LARGEST_ROWS:
        return None
    return launch


def _launch_softmax(sorter: ClosedFormSorter, problem: Problem, output: Output) -> None:
    # Nobody but the softmax over the kept scores is asked: a network without comparators.
    table = _table(None, problem.m, 0, problem.tiling.constants["M"], problem.logits.device)
    _run(network_loss, problem, output, table, output.losses, 0, 1.0, 0.0, LAW=LAWS[Distribution.LOGISTIC])


def _launch_network(sorter: SortingNetwork, problem: Problem, output: Output) -> None:
    table = _table(
        type(sorter),
        problem.m,
        problem.largest_open_k,
        problem.tiling.constants["M"],
        problem.logits.device,
    )
    scratch = _scratch(problem, _network.SCRATCH * table.numel())
    law = LAWS[Distribution(sorter.distribution)]
    steepness, art_lambda = float(sorter.steepness), float(sorter.art_lambda)
    _run(network_loss, problem, output, table, scratch, len(table), steepness, art_lambda, LAW=law)


def _launch_subset(sorter: Subset, problem: Problem, output: Output) -> None:
    degree = problem.largest_open_k
    scratch = _scratch(problem, _subset.SCRATCH * degree * problem.tiling.constants["M"])
    _run(subset_loss, problem, output, scratch, degree, float(sorter.temperature))


def _launch_rows(sorter: Any, problem: Problem, output: Output) -> None:
    ranks = power_of_two(problem.largest_open_k)
    _run(rows_loss, problem, output, float(sorter.temperature), RP=ranks, FAMILY=_ROWS[type(sorter)])


def _launch_smooth(sorter: Any, problem: Problem, output: Output) -> None:
    _run(threshold_loss, problem, output, float(sorter.scale), 1.0, FAMILY=_THRESHOLDS[type(sorter)])


def _launch_sparse(sorter: Sparse, problem: Problem, output: Output) -> None:
    _run(threshold_loss, problem, output, float(sorter.scale), 1 / (sorter.p - 1), FAMILY=SPARSE.value)


_THRESHOLDS: dict[type, int] = {
    Sigmoid: LOGISTIC.value,
    OptimalTransport: LOGISTIC.value,
    LapSum: LAPLACE.value,
    DFTopK: MIDWAY.value,
}
_ROWS: dict[type, int] = {NeuralSort: NEURAL.value, SoftSort: SOFT.value}
_BY_FAMILY: dict[type, Launch] = {
    **dict.fromkeys(_THRESHOLDS, _launch_smooth),
    Sparse: _launch_sparse,
    Subset: _launch_subset,
    **dict.fromkeys(_ROWS, _launch_rows),
}


def _scratch(problem: Problem, numbers: int) -> Tensor:
    """Return memory for so many numbers per row, if a gradient is wanted."""
    size = (len(problem.labels), numbers) if problem.gradient else (0,)
    return torch.empty(size, dtype=torch.float32, device=problem.logits.device)


def _run(kernel: Any, problem: Problem, output: Output, *arguments: Any, **constants: int) -> None:
    # Counted in units of ALIGN, so that the compiler knows how many scores can be read at once.
    align = problem.tiling.constants["ALIGN"]
    kernel[(len(problem.labels),)](
        problem.logits,
        problem.labels,
        problem.weights,
        _values_of_k(problem.ks, problem.logits.device),
        *output,
        problem.logits.stride(0) // align,
        problem.weights.stride(0) if problem.weights.dim() == 2 else 0,
        problem.logits.shape[-1] // align,
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
    return _constant(rows, torch.int32, device).reshape(len(layers), slots)


def _constant(values: list[float] | list[list[int]], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached tensors outlive the call; made under inference_mode, they would be refused by a training step.
    with torch.inference_mode(mode=False):
        return torch.tensor(values, dtype=dtype, device=device)
