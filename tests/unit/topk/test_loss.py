"""The loss around the sorters: truncation, reduction, errors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.topk import (
    Bitonic,
    NeuralSort,
    NonFiniteLogitsError,
    OddEven,
    SmoothSVM,
    Softmax,
    SoftSort,
    SplitterSelection,
    Subset,
    TopKCrossEntropy,
    topk_cross_entropy,
)
from podium.topk._selection import places_by_score, rank, strongest
from podium.topk._sorter import floored_log

_HALVES = {1: 0.5, 5: 0.5}


def _loss(logits: torch.Tensor, labels: torch.Tensor, **choices: Any) -> torch.Tensor:
    return topk_cross_entropy(logits, labels, **{"k": _HALVES, "sorter": Subset(), "m": 8, **choices})


def test_loss_is_minus_the_logarithm_of_the_expected_success():
    logits, labels = torch.randn(6, 12), torch.randint(12, (6,))

    c = Subset().label_topk_probability(logits, labels, (1, 5))

    torch.testing.assert_close(-(c @ torch.tensor([0.5, 0.5])).log().mean(), _loss(logits, labels, m=None))


def test_top_one_of_a_network_is_the_softmax_over_the_kept_scores():
    logits, labels = torch.randn(6, 30).sort(descending=True).values, torch.zeros(6, dtype=torch.int64)

    loss = _loss(logits, labels, k={1: 1.0}, sorter=OddEven())

    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits[:, :8], labels), loss)


def test_only_the_label_and_its_strongest_rivals_get_gradient():
    logits = torch.arange(20.0).expand(2, 20).clone().requires_grad_()

    torch.autograd.backward(_loss(logits, torch.tensor([0, 19])))

    assert logits.grad is not None
    assert [0, *range(13, 20)] == logits.grad[0].nonzero().flatten().tolist()
    assert list(range(12, 20)) == logits.grad[1].nonzero().flatten().tolist()


@pytest.mark.parametrize("sorter", [Subset(), SplitterSelection(), NeuralSort()])
def test_m_of_all_classes_and_more_keeps_all(sorter: Subset):
    logits, labels = torch.randn(5, 10), torch.arange(5)
    expected = _loss(logits, labels, sorter=sorter, m=None)

    torch.testing.assert_close(expected, _loss(logits, labels, sorter=sorter, m=10))
    torch.testing.assert_close(expected, _loss(logits, labels, sorter=sorter, m=1000))


def test_softmax_sees_all_scores_whatever_m():
    logits, labels = torch.randn(5, 10), torch.arange(5)

    loss = _loss(logits, labels, sorter=Softmax(), k={1: 1.0}, m=3)

    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, labels), loss)


@pytest.mark.parametrize("label", [0, 3, 7])
def test_ranked_scores_are_the_label_and_its_strongest_rivals_by_falling_score(label: int):
    logits = torch.tensor([[5.0, 1.0, 7.0, 4.0, 2.0, 6.0, 3.0, 0.0]])

    ranked = rank(logits, torch.tensor([label]), 6)

    own, *rivals = ranked.scores[0].tolist()
    assert own == logits[0, label]
    assert sorted((logits[0].tolist()[:label] + logits[0].tolist()[label + 1 :]), reverse=True)[:5] == rivals
    assert ranked.scores[0].tolist() == logits[0, ranked.classes[0]].tolist()


@settings(deadline=None, max_examples=40)
@given(
    # From some thousand scores on there are chunks of chunks.
    n=st.integers(1, 700) | st.integers(4000, 9000),
    m=st.integers(1, 8),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
    extreme=st.booleans(),
)
def test_the_quick_selection_is_that_of_torch_topk(n: int, m: int, ties: bool, seed: int, extreme: bool):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, n, generator=generator)
    scores = scores.round() if ties else scores
    if extreme:
        scores[0, 0], scores[1, n // 2], scores[2, n - 1] = -torch.inf, torch.nan, torch.inf
    m = min(m, n)

    places = strongest(scores, m)

    expected = scores.topk(m, dim=-1).values
    torch.testing.assert_close(expected, scores.gather(-1, places), equal_nan=True, rtol=0, atol=0)
    assert all(m == len(set(row)) for row in places.tolist())


def test_places_by_score_put_the_label_in_the_middle_of_its_equals():
    places = places_by_score(torch.tensor([[1.0, 3.0, 1.0, 1.0, 0.0], [9.0, 3.0, 1.0, 1.0, 0.0]]))

    assert [[2, 0, 1, 3, 4], [0, 1, 2, 3, 4]] == places.tolist()


@pytest.mark.parametrize("family", [OddEven, Bitonic, SplitterSelection])
def test_a_better_rank_is_a_better_probability_in_the_networks_lanes(family: type[OddEven]):
    logits = torch.arange(16.0).expand(16, 16).contiguous()

    losses = _loss(logits, torch.arange(16), k={5: 1.0}, sorter=family(steepness=4), m=None, reduction="none")

    assert losses[11:].max() < losses[:11].min()


@pytest.mark.parametrize("sorter", [NeuralSort(temperature=16), SoftSort(temperature=16)])
def test_a_sample_that_would_push_its_label_down_is_left_alone(sorter: NeuralSort):
    logits = torch.linspace(3, -3, 10).expand(2, 10).clone().requires_grad_()

    torch.autograd.backward(_loss(logits, torch.tensor([0, 9]), k={5: 1.0}, sorter=sorter, reduction="none").sum())

    assert logits.grad is not None
    assert 0 == logits.grad[0].abs().max()
    assert logits.grad[1, 9] < 0


def test_a_negated_loss_has_the_negated_gradient():
    logits, labels = torch.randn(4, 10, requires_grad=True), torch.arange(4)

    (up,) = torch.autograd.grad(_loss(logits, labels, sorter=OddEven()), logits)
    (down,) = torch.autograd.grad(-2 * _loss(logits, labels, sorter=OddEven()), logits)

    torch.testing.assert_close(-2 * up, down)


def test_a_networks_hopeless_sample_keeps_a_finite_loss_and_gradient():
    logits = torch.zeros(1, 16)
    logits[0, 3] = -1e4
    logits.requires_grad_()

    loss = _loss(logits, torch.tensor([3]), k={5: 1.0}, sorter=OddEven(distribution="gaussian"), m=None)
    torch.autograd.backward(loss)

    assert 60 < loss.item() < math.inf
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_ignored_samples_neither_cost_nor_count():
    logits = torch.randn(4, 10, requires_grad=True)
    labels = torch.tensor([1, -100, 2, -100])

    loss = _loss(logits, labels)
    torch.autograd.backward(loss)

    torch.testing.assert_close(_loss(logits[[0, 2]], labels[[0, 2]]), loss)
    assert [0.0, 0.0] == _loss(logits, labels, reduction="none")[[1, 3]].tolist()
    assert logits.grad is not None
    assert 0 == logits.grad[[1, 3]].abs().max()


def test_a_batch_without_counting_samples_costs_nothing():
    assert 0.0 == _loss(torch.randn(3, 10), torch.full((3,), -100)).item()
    assert 0.0 == _loss(torch.randn(0, 10), torch.zeros(0, dtype=torch.int64)).item()


def test_reductions_agree():
    logits, labels = torch.randn(2, 3, 10), torch.randint(10, (2, 3))

    each = _loss(logits, labels, reduction="none")

    assert (2, 3) == each.shape
    torch.testing.assert_close(each.sum(), _loss(logits, labels, reduction="sum"))
    torch.testing.assert_close(each.mean(), _loss(logits, labels))


def test_module_and_function_are_one():
    logits, labels = torch.randn(5, 20), torch.randint(20, (5,))
    module = TopKCrossEntropy(k=_HALVES, sorter=OddEven(), m=8, reduction="sum")

    assert _loss(logits, labels, sorter=OddEven(), reduction="sum") == module(logits, labels)
    assert "m=8" in repr(module)
    assert {} == module.state_dict()


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"k": {1: 0.5, 5: 0.4}}, "scale them to sum to 1"),
        ({"k": {}}, "scale them to sum to 1"),
        ({"k": {1: 1.5, 5: -0.5}}, "give a number from 0 to 1"),
        ({"k": {1: math.nan}}, "give a number from 0 to 1"),
        ({"k": {0: 1.0}}, "number of at least 1"),
        ({"k": {True: 1.0}}, "number of at least 1"),
        ({"k": {2.5: 1.0}}, "choose a threshold sorter"),
        ({"m": 5}, "raise m above it"),
        ({"k": {11: 1.0}, "m": None}, "lower k"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"epsilon": -0.1}, "epsilon is -0.1"),
        ({"sorter": SmoothSVM(), "epsilon": 0.1}, "leave it at 0"),
        ({"weight": torch.ones(9)}, "one weight for each of 10 classes"),
        ({"p_k": torch.ones(3, 3)}, "give 2 weights a sample"),
        ({"p_k": torch.ones(3, 2)}, "give weights that sum to 1"),
        ({"labels": torch.ones(3, 9)}, "floating point targets need the shape of logits"),
        ({"reduction": "average"}, "choose one of mean, sum, none"),
        ({"sorter": Softmax()}, "choose another sorter"),
        ({"labels": torch.tensor([0, 1, 10])}, r"must lie in \[0, 10\)"),
        ({"labels": torch.tensor([0, 1, -1])}, r"must lie in \[0, 10\)"),
        ({"labels": torch.tensor([0, 1])}, "shape of logits without the last one"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "need the shape of logits"),
        ({"logits": torch.zeros(3, 10, dtype=torch.int64)}, "floating point logits"),
        ({"logits": [[0.0] * 10] * 3}, "logits is of type list; give a torch.Tensor"),
        ({"p_k": [[0.5, 0.5]] * 3}, "p_k is of type list; give a torch.Tensor"),
        ({"labels": torch.eye(3, 10).long()}, "targets of floating point the whole shape"),
        ({"labels": -torch.eye(3, 10)}, r"targets\[0\] hold a negative number, NaN or inf"),
        ({"labels": torch.eye(3, 10) / torch.eye(3, 10)}, r"targets\[0\] hold a negative number, NaN or inf"),
        ({"sorter": "subset"}, "sorter is 'subset'; give one with its hyper-parameters"),
        ({"sorter": Subset}, "give one with its hyper-parameters"),
        ({"k": [1, 5]}, "give the weight of each k"),
        ({"k": {1: "1"}}, "give a number from 0 to 1"),
        ({"m": 8.0}, "m is 8.0; give a whole number"),
        ({"m": True, "k": {1: 1.0}}, "m is True; give a whole number"),
        ({"label_smoothing": "0.1"}, r"give a number in \[0, 1\)"),
    ],
)
def test_a_wrong_argument_is_refused_with_advice(choices: dict[str, Any], sentence: str):
    arguments = {"logits": torch.zeros(3, 10), "labels": torch.arange(3), **choices}

    with pytest.raises(ValueError, match=sentence):
        _loss(**arguments)


def test_a_schedule_may_set_k_and_is_checked():
    logits, labels = torch.randn(3, 10), torch.arange(3)
    module = TopKCrossEntropy(k=_HALVES, sorter=Subset(), m=8)

    module.k = {1: 0.2, 5: 0.8}
    with pytest.raises(ValueError, match="raise m above it"):
        module.k = {8: 1.0}

    assert {1: 0.2, 5: 0.8} == module.k
    assert _loss(logits, labels, k={1: 0.2, 5: 0.8}) == module(logits, labels)


def test_weights_of_zero_drop_out():
    logits, labels = torch.randn(3, 10), torch.arange(3)

    assert _loss(logits, labels, k={1: 1.0}) == _loss(logits, labels, k={9: 0.0, 1: 1.0}, m=8)


def test_numbers_of_numpy_are_taken_for_k():
    logits, labels = torch.randn(3, 10), torch.arange(3)

    assert _loss(logits, labels) == _loss(logits, labels, k=dict(zip(np.array([1, 5]), np.full(2, 0.5), strict=True)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_the_loss_has_the_precision_of_the_logits_whatever_that_of_weights_and_targets(dtype: torch.dtype):
    logits, labels = torch.randn(3, 10), torch.arange(3)

    weighted = _loss(logits, labels, weight=torch.ones(10, dtype=dtype))

    assert torch.equal(_loss(logits, labels), weighted)
    if dtype.is_floating_point:
        soft = _loss(logits, torch.eye(3, 10, dtype=dtype))
        assert torch.float32 is soft.dtype
        torch.testing.assert_close(weighted, soft)


def test_many_weights_of_half_precision_add_up():
    weight = torch.full((10,), 1000.0, dtype=torch.float16)

    assert _loss(torch.randn(100, 10), torch.zeros(100, dtype=torch.int64), weight=weight) > 0


def test_nan_in_an_ignored_sample_is_named_as_its_gradient_would_be_nan():
    logits = torch.zeros(3, 10, requires_grad=True)
    with torch.no_grad():
        logits[1] = math.nan

    with pytest.raises(NonFiniteLogitsError, match=r"logits\[1\] hold NaN"):
        _loss(logits, torch.tensor([0, -100, 2]))


@pytest.mark.parametrize("scale", [1e7, 1e10])
def test_the_gradient_of_scores_beyond_all_rounding_stays_bounded(scale: float):
    logits = (scale * torch.randn(64, 20, generator=torch.Generator().manual_seed(0))).requires_grad_()

    (gradient,) = torch.autograd.grad(_loss(logits, torch.zeros(64, dtype=torch.int64), reduction="sum"), logits)

    assert gradient.abs().max() <= 2


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.uint16, torch.uint64])
def test_labels_of_other_integer_types_are_taken(dtype: torch.dtype):
    logits, labels = torch.randn(3, 10), torch.arange(3)

    assert _loss(logits, labels) == _loss(logits, labels.to(dtype))


@pytest.mark.parametrize("sorter", [Subset(), SoftSort(), NeuralSort()])
def test_a_class_ruled_out_by_minus_infinity_counts_as_absent(sorter: Subset):
    logits, labels = torch.randn(4, 8), torch.arange(4)
    padded = torch.cat([logits, torch.full((4, 2), -torch.inf)], dim=1)

    torch.testing.assert_close(
        _loss(logits, labels, sorter=sorter, m=None), _loss(padded, labels, sorter=sorter, m=None)
    )


def test_the_logarithm_of_an_underflowing_probability_keeps_its_gradient():
    probability = torch.tensor([0.0, 1e-35, 1e-30, 0.5], requires_grad=True)

    log = floored_log(probability)
    (gradient,) = torch.autograd.grad(log.sum(), probability)

    assert log.isfinite().all()
    torch.testing.assert_close(torch.tensor([1e30, 1e30, 1e30, 2.0]), gradient)
