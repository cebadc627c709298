"""The loss of the authors' package difftopk 0.2.0, number for number and in its own vocabulary.

For agreement tests and for repeating published runs. It keeps what `topk_cross_entropy` repairs: an epsilon of 1e-7
that caps the loss at 16.118, class mass above one, the label always in lane 0, and a near-infinite slope at ties.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from podium.topk._bitonic import Bitonic
from podium.topk._distributions import Distribution, published_law
from podium.topk._gradient import with_gradient
from podium.topk._network import SortingNetwork, column
from podium.topk._neural_sort import NeuralSort
from podium.topk._odd_even import OddEven
from podium.topk._rows import RowSorter
from podium.topk._selection import rank
from podium.topk._soft_sort import SoftSort
from podium.topk._splitter_selection import SplitterSelection

__all__ = ["reference_loss"]

_EPSILON = 1e-7

_NETWORKS: Mapping[str, type[SortingNetwork]] = MappingProxyType(
    {
        "odd_even": OddEven,
        "bitonic": Bitonic,
        "splitter_selection": SplitterSelection,
    }
)
_ROW_SORTERS: Mapping[str, type[RowSorter]] = MappingProxyType({"neuralsort": NeuralSort, "softsort": SoftSort})


def reference_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    sorter: str,
    p_k: Sequence[float],
    m: int | None,
    top1_mode: str,
    inverse_temperature: float,
    distribution: str | None = None,
    art_lambda: float = 0.25,
) -> Tensor:
    """Return the mean loss that difftopk's `TopKCrossEntropyLoss` gives.

    Args:
        logits: Scores, (batch, n), float32 or float64.
        labels: True classes, (batch,), int64.
        sorter: odd_even, bitonic, splitter_selection, neuralsort or softsort.
        p_k: Weights of k = 1, 2, ..., len(p_k).
        m: How many scores to sort, above len(p_k); None sorts all.
        top1_mode: "sm" takes c_1 from a softmax inside the logarithm, "smce" adds a separate cross entropy, "sort"
            trusts the sorter.
        inverse_temperature: Steepness of a network, 1 / temperature of the others.
        distribution: Comparator law; networks need one.
        art_lambda: Exponent of logistic_phi.

    Raises:
        ValueError: If a name is unknown, a network has no distribution, or m is out of range.
    """
    if top1_mode not in _TOP1_MODES:
        raise ValueError(f"top1_mode is {top1_mode!r}; choose one of {', '.join(_TOP1_MODES)}.")
    ks = tuple(range(1, len(p_k) + 1))
    if m is not None and not len(p_k) < m <= logits.shape[-1]:
        raise ValueError(
            f"m is {m}; give a number above len(p_k), {len(p_k)}, "
            f"and at most {logits.shape[-1]}, the number of classes."
        )
    with torch.no_grad():
        if m is None:
            classes, lane = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape), labels
        else:
            # Label first, then by falling score: the order of the package, which its networks depend on.
            classes, lane = rank(logits, labels, m).classes, torch.zeros_like(labels)
        c, slope = _column(sorter, logits.gather(-1, classes), lane, ks, inverse_temperature, distribution, art_lambda)
    kept = logits.gather(-1, classes)
    return _TOP1_MODES[top1_mode](
        _log_softmax(kept, lane), with_gradient(logits, c, slope, classes), c.new_tensor(p_k)
    ).mean()


def _column(
    name: str,
    scores: Tensor,
    lane: Tensor,
    ks: tuple[int, ...],
    inverse_temperature: float,
    distribution: str | None,
    art_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Return the label's mass in the first k ranks, (batch, K), and its derivative, (batch, K, m)."""
    if name in _ROW_SORTERS:
        return _row_column(_ROW_SORTERS[name](temperature=1 / inverse_temperature), scores, lane, ks)
    if name not in _NETWORKS:
        raise ValueError(f"sorter is {name!r}; choose one of {', '.join([*_NETWORKS, *_ROW_SORTERS])}.")
    if distribution is None:
        raise ValueError(f"{name} needs a distribution; choose one of {', '.join(Distribution)}.")
    network = _NETWORKS[name](steepness=inverse_temperature, distribution=distribution, art_lambda=art_lambda)
    law = published_law(Distribution(network.distribution), inverse_temperature, art_lambda)
    mass = torch.zeros_like(scores).scatter(-1, lane.unsqueeze(-1), 1.0)
    c, slope = column(type(network), scores, mass, ks, law, gradient=True)
    assert slope is not None  # asked for
    return c, slope


def _row_column(sorter: RowSorter, scores: Tensor, lane: Tensor, ks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    ranked, places, _ = rank(scores, lane, scores.shape[-1])
    log_mass, slope = sorter.column(ranked, ks, gradient=True)
    assert slope is not None  # asked for
    mass = log_mass.exp()
    return mass, torch.zeros_like(slope).scatter(
        -1, places.unsqueeze(-2).expand(slope.shape), slope * mass.unsqueeze(-1)
    )


def _log_softmax(scores: Tensor, lanes: Tensor) -> Tensor:
    return scores.log_softmax(-1).gather(-1, lanes.unsqueeze(-1)).squeeze(-1)


def _nll(probability: Tensor) -> Tensor:
    return -(probability * (1 - 2 * _EPSILON) + _EPSILON).log()


def _sm(log_top1: Tensor, c: Tensor, p_k: Tensor) -> Tensor:
    return _nll(p_k[0] * log_top1.exp() + c[..., 1:] @ p_k[1:])


def _smce(log_top1: Tensor, c: Tensor, p_k: Tensor) -> Tensor:
    return -p_k[0] * log_top1 + p_k[1:].sum() * _nll(c[..., 1:] @ p_k[1:])


def _sort(log_top1: Tensor, c: Tensor, p_k: Tensor) -> Tensor:
    return _nll(c @ p_k)


_TOP1_MODES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "sm": _sm,
        "smce": _smce,
        "sort": _sort,
    }
)
