"""The threshold families against what defines them, written down anew and solved by brute force (n <= 12)."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from podium.topk import DFTopK, LapSum, OptimalTransport, Sigmoid, SinkhornSort, Sorter, Sparse

_KS = (1, 2, 2.5, 4)
score_lists = st.lists(st.floats(-6, 6), min_size=6, max_size=12)
few_examples = settings(deadline=None, max_examples=12)


def _all(sorter: Sorter, scores: Tensor, ks: tuple[float, ...]) -> Tensor:
    """Return c_k of every class, (n, K)."""
    n = len(scores)
    return sorter.label_topk_probability(scores.expand(n, n), torch.arange(n), ks)


def _by_bisection(law: Callable[[float], float], scores: list[float], k: float) -> list[float]:
    low, high = min(scores) - 60, max(scores) + 60
    for _ in range(200):
        middle = (low + high) / 2
        if sum(law(x - middle) for x in scores) > k:
            low = middle
        else:
            high = middle
    return [law(x - low) for x in scores]


def _logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def _laplace(z: float) -> float:
    return math.exp(z) / 2 if z < 0 else 1 - math.exp(-z) / 2


@pytest.mark.parametrize(("family", "law"), [(Sigmoid, _logistic), (LapSum, _laplace)])
@few_examples
@given(scores=score_lists, temperature=st.sampled_from([0.3, 1.0, 4.0]))
def test_memberships_share_k_places_by_their_law(
    family: type[Sigmoid], law: Callable[[float], float], scores: list[float], temperature: float
):
    c = _all(family(temperature=temperature), torch.tensor(scores, dtype=torch.float64), _KS)

    for place, k in enumerate(_KS):
        expected = _by_bisection(law, [x / temperature for x in scores], k)
        torch.testing.assert_close(torch.tensor(expected, dtype=torch.float64), c[:, place], atol=1e-9, rtol=1e-7)


@few_examples
@given(scores=score_lists, k=st.sampled_from([1, 2, 5]), epsilon=st.sampled_from([0.5, 2.0]))
def test_optimal_transport_is_what_sinkhorn_converges_to(scores: list[float], k: int, epsilon: float):
    x = torch.tensor(scores, dtype=torch.float64)
    cost = (x.unsqueeze(1) - torch.tensor([1.0, 0.0], dtype=torch.float64)).square()
    n = len(scores)
    mass = torch.tensor([k / n, 1 - k / n], dtype=torch.float64).log()
    g = torch.zeros(2, dtype=torch.float64)
    for _ in range(2000):
        f = -math.log(n) - (-cost / epsilon + g).logsumexp(1)
        new = mass - (-cost / epsilon + f.unsqueeze(1)).logsumexp(0)
        done, g = (new - g).abs().max() < 1e-13, new
        if done:
            break
    # Sinkhorn crawls where a gap is many epsilons wide.
    assume(done)
    plan = (-cost / epsilon + f.unsqueeze(1) + g).exp()

    c = _all(OptimalTransport(regularization=epsilon), x, (k,))

    torch.testing.assert_close(n * plan[:, 0], c[:, 0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("p", [2.0, 4 / 3, 1.6])
@few_examples
@given(scores=score_lists, k=st.sampled_from([1, 2, 2.5, 5]), strength=st.sampled_from([0.5, 3.0, 20.0]))
def test_sparse_memberships_are_better_than_any_others(p: float, scores: list[float], k: float, strength: float):
    x = torch.tensor(scores, dtype=torch.float64)

    def objective(w: Tensor) -> Tensor:
        return w @ x - strength / p * w.pow(p).sum(-1)

    w = _all(Sparse(p=p, regularization=strength), x, (k,))[:, 0]

    assert w.sum().item() == pytest.approx(k, abs=1e-6)
    # Concave: nothing feasible near it or far from it may be better.
    generator = torch.Generator().manual_seed(0)
    others = torch.rand(200, len(scores), dtype=torch.float64, generator=generator)
    for _ in range(300):
        others = (others * (k / others.sum(-1, keepdim=True))).clamp(0, 1)
    others = others[(others.sum(-1) - k).abs() < 1e-9]
    assert len(others) > 50
    for share in (1.0, 0.1, 1e-3):
        assert (objective(w + share * (others - w)) <= objective(w) + 1e-6).all()


def test_sparse_memberships_reach_zero_and_one():
    c = _all(Sparse(regularization=2.0), torch.tensor([5.0, 4.5, 1.0, 0.5, -3.0]), (2,))[:, 0]

    assert 1 == c[0]
    assert [0.0, 0.0] == c[3:].tolist()


@few_examples
@given(scores=score_lists, temperature=st.sampled_from([0.3, 2.0]))
def test_df_top_k_is_half_way_between_two_order_statistics(scores: list[float], temperature: float):
    ordered = sorted(scores, reverse=True)

    c = _all(DFTopK(temperature=temperature), torch.tensor(scores, dtype=torch.float64), (1, 4))

    for place, k in enumerate((1, 4)):
        middle = (ordered[k - 1] + ordered[k]) / 2
        expected = [_logistic(max(-700, (x - middle) / temperature)) for x in scores]
        torch.testing.assert_close(torch.tensor(expected, dtype=torch.float64), c[:, place])


def test_sinkhorn_sort_is_a_transport_plan_to_the_first_ranks():
    x = torch.tensor([0.3, -1.2, 2.0, 0.9, -0.4, 1.1], dtype=torch.float64)
    deviation = x - x.mean()
    squashed = (deviation / (deviation.square().mean() + 0.1).sqrt()).sigmoid()
    targets = torch.tensor([1.0, 0.8, (0.6 + 0.4 + 0.2 + 0.0) / 4], dtype=torch.float64)
    kernel = (-(squashed.unsqueeze(1) - targets).square() / 0.1).exp()
    rows, columns = torch.full((6,), 1 / 6, dtype=torch.float64), torch.tensor([1 / 6, 1 / 6, 4 / 6]).double()
    v = torch.ones(3, dtype=torch.float64)
    for _ in range(3000):
        u = rows / (kernel @ v)
        v = columns / (kernel.mT @ u)
    plan = u.unsqueeze(1) * kernel * v

    c = _all(SinkhornSort(iterations=500), x, (1, 2))

    torch.testing.assert_close(6 * plan[:, :2].cumsum(1), c)
