"""The sorting networks against a dense product of layer matrices, and against what is known of each network."""

import math
from typing import Any

import pytest
import torch

from podium.topk import Bitonic, Distribution, OddEven, SortingNetwork, SplitterSelection
from podium.topk._distributions import published_law, swap_law
from podium.topk._network import column
from podium.topk._schedule import prune

_FAMILIES = (OddEven, Bitonic, SplitterSelection)
# P(top 5) per class for x_j = 2 sin(1 + j), recorded from difftopk 0.2.0.
_PHI = {"distribution": "logistic_phi", "steepness": 1.0, "art_lambda": 0.5}
_CAUCHY = {"distribution": "cauchy", "steepness": 2.0}
_RECORDED = [
    (OddEven, _PHI, [0.5452, 0.5664, 0.5388, 0.3213, 0.4631, 0.6515, 0.9444, 0.9693]),
    (OddEven, _CAUCHY, [0.8190, 0.8235, 0.6175, 0.1555, 0.1889, 0.4515, 0.9579, 0.9861]),
    (Bitonic, _PHI, [0.7800, 0.7803, 0.5785, 0.5276, 0.3986, 0.4075, 0.7607, 0.7669]),
    (Bitonic, _CAUCHY, [0.9166, 0.9141, 0.6812, 0.2632, 0.1783, 0.2269, 0.9069, 0.9129]),
    (SplitterSelection, _PHI, [0.7828, 0.8151, 0.6633, 0.3377, 0.2933, 0.5145, 0.7625, 0.8308]),
    (SplitterSelection, _CAUCHY, [0.9156, 0.9243, 0.7559, 0.1352, 0.1144, 0.3311, 0.8860, 0.9374]),
]


def _law(name: str, v: float) -> float:
    return {
        "logistic": 1 / (1 + math.exp(-v)),
        "gaussian": 0.5 * (1 + math.erf(v / math.sqrt(2))),
        "reciprocal": 0.5 * (v / (2 + abs(v)) + 1),
        "cauchy": math.atan(v) / math.pi + 0.5,
        "optimal": v + 0.5 if abs(v) <= 0.25 else (1 - 1 / (16 * v) if v > 0 else 1 / (16 * abs(v))),
        "logistic_phi": 1 / (1 + math.exp(-v / (abs(v) + 1e-3) ** 0.25)),
    }[name]


def _dense(family: type[SortingNetwork], name: str, scores: torch.Tensor, k: int) -> torch.Tensor:
    """Multiply full matrices, comparator by comparator: the definition, at O(m^2) each."""
    values = scores.clone()
    permutation = torch.eye(len(scores), dtype=scores.dtype)
    for layer in family.layers(len(scores), k):
        for low, high in layer:
            stay = _law(name, float(values[high] - values[low]))
            comparator = torch.eye(len(scores), dtype=scores.dtype)
            comparator[[low, high], [low, high]] = stay
            comparator[[low, high], [high, low]] = 1 - stay
            values = values @ comparator
            permutation = permutation @ comparator
    return permutation.flip(1)[:, :k].cumsum(1)


@pytest.mark.parametrize("name", Distribution)
@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("m", [6, 10])
def test_label_column_equals_the_dense_matrix_product(family: type[SortingNetwork], name: Distribution, m: int):
    scores = torch.randn(m, dtype=torch.float64, generator=torch.Generator().manual_seed(m))

    starts = torch.eye(m, dtype=torch.float64)
    law = swap_law(name, 1.0, 0.25)
    c, _ = column(family, scores.expand(m, m), starts, (1, 2, 3, 4, 5), law, gradient=False)

    torch.testing.assert_close(_dense(family, name, scores, 5), c)


@pytest.mark.parametrize("family", _FAMILIES)
def test_scores_start_in_order_and_the_label_in_the_middle_of_its_equals(family: type[SortingNetwork]):
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0, 7.0, 0.0])
    ordered = scores.sort().values
    by_lane, _ = column(
        family, ordered.expand(6, 6), torch.eye(6), (2,), swap_law(Distribution.CAUCHY, 2.0, 0.5), gradient=False
    )

    c = family().label_topk_probability(scores.expand(6, 6), torch.arange(6), (2,))

    torch.testing.assert_close(by_lane[[4, 1, 3, 3, 5, 0]], c)


@pytest.mark.parametrize(("family", "choices", "expected"), _RECORDED)
def test_probabilities_recorded_from_difftopk(
    family: type[SortingNetwork], choices: dict[str, Any], expected: list[float]
):
    scores = 2 * torch.sin(1 + torch.arange(8.0))

    law = published_law(choices["distribution"], choices["steepness"], choices.get("art_lambda", 0.0))
    c, _ = column(family, scores.expand(8, 8), torch.eye(8), (5,), law, gradient=False)

    torch.testing.assert_close(torch.tensor(expected), c[:, 0], atol=6e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "m", "k", "depth", "comparators"),
    [
        (Bitonic, 16, 5, 10, 80),
        (Bitonic, 50, 5, 21, 492),
        (Bitonic, 1000, 5, 55, 27268),
        (OddEven, 16, 5, 16, 120),
        (OddEven, 50, 5, 50, 1225),
        (SplitterSelection, 8, 5, 8, 20),
        (SplitterSelection, 16, 5, 10, 50),
        (SplitterSelection, 16, 10, 17, 72),
        (SplitterSelection, 100, 20, 47, 905),
        (SplitterSelection, 1000, 5, 22, 5085),
    ],
)
def test_network_has_the_published_size(family: type[SortingNetwork], m: int, k: int, depth: int, comparators: int):
    layers = family.layers(m, k)

    assert (depth, comparators) == (len(layers), sum(map(len, layers)))


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("m", [2, 3, 7, 16, 33])
def test_layers_touch_each_lane_at_most_once(family: type[SortingNetwork], m: int):
    for layer in family.layers(m, 1):
        lanes = [lane for pair in layer for lane in pair]

        assert len(lanes) == len(set(lanes))
        assert set(lanes) <= set(range(m))


def test_pruning_drops_what_cannot_reach_the_top():
    layers = OddEven.layers(16, 1)

    assert sum(map(len, prune(layers, 16, 1))) < sum(map(len, layers))
    assert ((14, 15),) == prune(layers, 16, 1)[-1]


def test_two_samples_of_a_batch_do_not_meet():
    scores = torch.randn(5, 12, requires_grad=True)

    c = SplitterSelection().label_topk_probability(scores, torch.zeros(5, dtype=torch.int64), (3,))
    torch.autograd.backward(c[2].sum())

    assert scores.grad is not None
    assert [2] == scores.grad.abs().sum(1).nonzero().flatten().tolist()


def test_an_unknown_distribution_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="choose one of logistic, logistic_phi"):
        OddEven(distribution="laplace")


def test_a_distribution_may_be_given_by_name():
    assert OddEven(distribution=Distribution.GAUSSIAN) == OddEven(distribution="gaussian")


def test_art_lambda_of_one_is_refused():
    with pytest.raises(ValueError, match="art_lambda is 1"):
        Bitonic(art_lambda=1)


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize(("batch", "m"), [(3, 1), (0, 6)])
def test_one_lane_or_no_sample_is_no_special_case(family: type[SortingNetwork], batch: int, m: int):
    scores = torch.zeros(batch, m, requires_grad=True)

    c = family().label_topk_probability(scores, torch.zeros(batch, dtype=torch.int64), (1,))

    assert (batch, 1) == c.shape
    assert scores.shape == torch.autograd.grad(c.sum(), scores)[0].shape
