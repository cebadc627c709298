"""The subset sorter against the enumeration of all subsets."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.topk import Subset


def _enumerate(theta: torch.Tensor, k: int) -> torch.Tensor:
    """Return the probability of every class being in a k-subset drawn with weight exp(sum of its theta)."""
    subsets = list(combinations(range(len(theta)), k))
    weights = torch.stack([theta[list(subset)].sum() for subset in subsets]).softmax(0)
    inside = torch.tensor([[i in subset for i in range(len(theta))] for subset in subsets], dtype=theta.dtype)
    return weights @ inside


@settings(deadline=None, max_examples=30)
@given(scores=st.lists(st.floats(-8, 8), min_size=2, max_size=8), temperature=st.sampled_from([0.5, 1.0, 3.0]))
def test_equals_the_enumeration_of_all_subsets(scores: list[float], temperature: float):
    theta = torch.tensor(scores, dtype=torch.float64)
    n = len(scores)
    ks = tuple(range(1, n))

    c = Subset(temperature=temperature).label_topk_probability(theta.expand(n, n), torch.arange(n), ks)

    torch.testing.assert_close(torch.stack([_enumerate(theta / temperature, k) for k in ks], dim=1), c)


def test_k_of_all_classes_is_certain():
    c = Subset().label_topk_probability(torch.randn(3, 6), torch.tensor([0, 3, 5]), (6,))

    torch.testing.assert_close(torch.ones(3, 1), c)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e4])
def test_float32_stays_close_to_float64(scale: float):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 200, generator=generator) * scale
    labels = torch.randint(200, (50,), generator=generator)

    log_c = Subset().label_topk_log_probability(scores, labels, (1, 5, 20))

    expected = Subset().label_topk_log_probability(scores.double(), labels, (1, 5, 20))
    torch.testing.assert_close(expected.float(), log_c, rtol=1e-4, atol=1e-4 * scale)
