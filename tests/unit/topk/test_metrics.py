"""Top-k counts: ties, NaN, ignored labels, adding up."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.topk import expected_topk_accuracy, topk_accuracy


def test_counts_labels_among_the_k_largest():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).expand(4, 4)

    counts = topk_accuracy(logits, torch.arange(4), (1, 3))

    assert {1: 1, 3: 3} == {k: int(count) for k, count in counts.items()}
    assert 4 == counts.total


@settings(deadline=None, max_examples=30)
@given(scores=st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6, unique=True), label=st.integers(0, 5))
def test_agrees_with_torch_topk(scores: list[float], label: int):
    logits = torch.tensor([scores])

    counts = topk_accuracy(logits, torch.tensor([label]), range(1, 7))

    assert [label in logits.topk(k).indices for k in counts] == [bool(count) for count in counts.values()]


def test_a_tie_goes_to_the_lower_class():
    counts = topk_accuracy(torch.zeros(4, 4), torch.arange(4), (1, 2))

    assert [1, 2] == counts.correct.tolist()


def test_a_nan_label_is_wrong_even_for_k_of_all_classes():
    logits = torch.full((3, 3), torch.nan)

    assert [0, 0] == topk_accuracy(logits, torch.arange(3), (1, 3)).correct.tolist()


def test_a_nan_rival_ranks_above_the_label():
    logits = torch.tensor([[torch.nan, 1.0, 0.0]])

    assert [0, 1] == topk_accuracy(logits, torch.tensor([1]), (1, 2)).correct.tolist()


def test_ignored_labels_are_not_counted():
    counts = topk_accuracy(torch.eye(3), torch.tensor([0, -100, -100]), (1, 3))

    assert [1, 1] == counts.correct.tolist()
    assert 1 == counts.total


def test_counts_of_two_batches_add_up():
    logits, labels = torch.randn(3, 7, 10), torch.randint(10, (3, 7))

    total = topk_accuracy(logits[:1], labels[:1], (1, 5)) + topk_accuracy(logits[1:], labels[1:], (1, 5))

    assert topk_accuracy(logits, labels, (5, 1)).accuracy() == total.accuracy()


def test_counts_for_other_ks_do_not_add_up():
    one, two = (topk_accuracy(torch.eye(3), torch.arange(3), (k,)) for k in (1, 2))

    with pytest.raises(ValueError, match="count the same ks"):
        one + two


def test_expected_accuracy_weighs_the_ks():
    counts = topk_accuracy(torch.tensor([[2.0, 1.0, 0.0]]).expand(3, 3), torch.arange(3), (1, 2))

    assert pytest.approx(0.25 * 1 / 3 + 0.75 * 2 / 3) == expected_topk_accuracy(counts, {1: 0.25, 2: 0.75})


def test_expected_accuracy_needs_the_ks_counted():
    counts = topk_accuracy(torch.eye(3), torch.arange(3), (1,))

    with pytest.raises(ValueError, match=r"k = \[2\] was not counted"):
        expected_topk_accuracy(counts, {1: 0.5, 2: 0.5})


def test_an_empty_count_has_accuracy_zero():
    assert {1: 0.0} == topk_accuracy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), (1,)).accuracy()


@pytest.mark.parametrize("ks", [(), (0,), (4,), (1.5,), ("1",), 1])
def test_ks_out_of_range_are_refused(ks: Any):
    with pytest.raises(ValueError, match="each from 1 to the number of classes, 3"):
        topk_accuracy(torch.eye(3), torch.arange(3), ks)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (torch.arange(2), "shape of logits without the last one"),
        (torch.arange(3.0), "give integer labels"),
        (torch.tensor([0, 1, 3]), r"must lie in \[0, 3\) or be ignore_index"),
        (torch.tensor([0, 1, -1]), r"must lie in \[0, 3\) or be ignore_index"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_advice(labels: torch.Tensor, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        topk_accuracy(torch.eye(3), labels, (1,))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16])
def test_labels_and_ks_of_any_integer_type_are_counted(dtype: torch.dtype):
    counts = topk_accuracy(torch.eye(3), torch.arange(3, dtype=torch.int64).to(dtype), torch.tensor([1, 2]).tolist())

    assert {1: 1.0, 2: 1.0} == counts.accuracy()


def test_an_unknown_k_is_a_key_error():
    with pytest.raises(KeyError):
        topk_accuracy(torch.eye(3), torch.arange(3), (1,))[2]
