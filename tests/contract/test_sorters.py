"""The laws every sorter obeys, whatever its family, and those the loss adds on top."""

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from podium.topk import (
    SORTERS,
    Distribution,
    LogDomainSorter,
    Softmax,
    Sorter,
    SortingNetwork,
    TopKCrossEntropy,
    topk_cross_entropy,
)
from podium.topk._rows import RowSorter

_DEFAULTS: dict[str, Any] = {name: family() for name, family in SORTERS.items()}
_NETWORKS = {
    f"{name}-{law}": family(distribution=law)
    for name, family in SORTERS.items()
    if issubclass(family, SortingNetwork)
    for law in Distribution
}
_WARM = {name: replace(sorter, temperature=8.0) for name, sorter in _DEFAULTS.items() if hasattr(sorter, "temperature")}
_ALL = {**_DEFAULTS, **_NETWORKS, **{f"{name}-warm": sorter for name, sorter in _WARM.items()}}
_EQUIVARIANT = {name: sorter for name, sorter in _ALL.items() if not sorter.lane_dependent}
_LOG_DOMAIN = {name: sorter for name, sorter in _ALL.items() if isinstance(sorter, LogDomainSorter)}
_TEMPERED = {name: sorter for name, sorter in _ALL.items() if not isinstance(sorter, Softmax)}
_LABELS = torch.arange(10)

every_sorter = pytest.mark.parametrize("sorter", _ALL.values(), ids=_ALL)
every_family = pytest.mark.parametrize("sorter", _DEFAULTS.values(), ids=_DEFAULTS)
equivariant_sorters = pytest.mark.parametrize("sorter", _EQUIVARIANT.values(), ids=_EQUIVARIANT)
log_domain_sorters = pytest.mark.parametrize("sorter", _LOG_DOMAIN.values(), ids=_LOG_DOMAIN)
tempered_sorters = pytest.mark.parametrize("sorter", _TEMPERED.values(), ids=_TEMPERED)
few_examples = settings(deadline=None, max_examples=30)
score_lists = st.lists(st.floats(-20, 20, width=32), min_size=10, max_size=10)
wild_score_lists = st.lists(st.sampled_from([-1e4, -3.0, 0.0, 0.001, 3.0, 1e4]), min_size=10, max_size=10)


def _ks(sorter: Sorter) -> tuple[int, ...]:
    return (1,) if isinstance(sorter, Softmax) else (1, 2, 5)


def _p_k(sorter: Sorter) -> dict[int, float]:
    return {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.25, 5: 0.75}


def _relaxed_only(sorter: Sorter) -> dict[int, float]:
    return {1: 1.0} if isinstance(sorter, Softmax) else {5: 1.0}


def _every_label(scores: list[float] | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Repeat one row of scores, so that each class is the label once."""
    return torch.as_tensor(scores, dtype=dtype).expand(10, 10).clone()


def _harden(sorter: Any) -> Any:
    if isinstance(sorter, SortingNetwork):
        return replace(sorter, steepness=1e6)
    return replace(sorter, temperature=1e-6)


def _loss_and_gradient(
    sorter: Sorter, logits: Tensor, p_k: dict[int, float], m: int | None = 8
) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().requires_grad_()
    losses = topk_cross_entropy(leaf, _LABELS, k=p_k, sorter=sorter, m=m, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient


@every_sorter
@few_examples
@given(scores=st.one_of(score_lists, wild_score_lists))
def test_probabilities_lie_between_zero_and_one_and_never_fall_with_k(sorter: Sorter, scores: list[float]):
    c = sorter.label_topk_probability(_every_label(scores), _LABELS, _ks(sorter))

    assert (c >= 0).all()
    assert (c <= 1).all()
    assert (c.diff(dim=-1) >= -1e-6).all()


@every_sorter
@few_examples
@given(scores=score_lists)
def test_log_probability_is_the_logarithm_of_the_probability(sorter: Sorter, scores: list[float]):
    rows = _every_label(scores, torch.float64)

    log_c = sorter.label_topk_log_probability(rows, _LABELS, _ks(sorter))
    c = sorter.label_topk_probability(rows, _LABELS, _ks(sorter))

    assert log_c.isfinite().all()
    torch.testing.assert_close(log_c.exp(), c)


@every_sorter
@few_examples
@given(scores=score_lists)
def test_all_classes_share_k_places(sorter: Sorter, scores: list[float]):
    if isinstance(sorter, RowSorter):
        sorter = replace(sorter, as_published=True)
    rows = _every_label(scores, torch.float64)

    total = sorter.label_topk_probability(rows, _LABELS, _ks(sorter)).sum(0)

    torch.testing.assert_close(torch.tensor(_ks(sorter), dtype=torch.float64), total)


@every_sorter
def test_output_has_the_leading_dimensions_of_the_labels(sorter: Sorter):
    scores = torch.randn(2, 3, 4, 10)
    labels = torch.randint(10, (2, 3, 4))

    c = sorter.label_topk_probability(scores, labels, _ks(sorter))

    assert (2, 3, 4, len(_ks(sorter))) == c.shape
    torch.testing.assert_close(sorter.label_topk_probability(scores[1, 2], labels[1, 2], _ks(sorter)), c[1, 2])


@tempered_sorters
@pytest.mark.parametrize("m", [7, 10, 16])
def test_converges_to_the_hard_top_k(sorter: Sorter, m: int):
    generator = torch.Generator().manual_seed(m)
    scores = torch.stack([torch.randperm(m, generator=generator) for _ in range(m)]).double()
    labels = torch.arange(m)
    rank = (scores > scores.gather(1, labels[:, None])).sum(1)
    expected = torch.stack([rank < k for k in (1, 2, 5)], dim=1).double()

    c = _harden(sorter).label_topk_probability(scores, labels, (1, 2, 5))

    # A Cauchy tail leaves 1e-6 / pi at every comparator, which layers add up.
    torch.testing.assert_close(expected, c, atol=1e-4, rtol=0)


@every_sorter
@few_examples
@given(scores=score_lists, shift=st.floats(-50, 50))
def test_adding_a_constant_changes_nothing(sorter: Sorter, scores: list[float], shift: float):
    # On a grid, where the shift is exact: rounding may not make or break a tie.
    rows = (_every_label(scores, torch.float64) * 16).round() / 16
    step = round(shift)

    before = sorter.label_topk_probability(rows, _LABELS, _ks(sorter))
    after = sorter.label_topk_probability(rows + step, _LABELS, _ks(sorter))

    torch.testing.assert_close(before, after, atol=1e-9, rtol=1e-7)


@equivariant_sorters
@few_examples
@given(scores=score_lists, order=st.permutations(range(10)))
def test_reordering_the_classes_changes_nothing(sorter: Sorter, scores: list[float], order: list[int]):
    rows = _every_label(scores, torch.float64)
    places = torch.tensor(order)

    before = sorter.label_topk_probability(rows, places, _ks(sorter))
    after = sorter.label_topk_probability(rows[:, places], _LABELS, _ks(sorter))

    torch.testing.assert_close(before, after)


@every_sorter
def test_gradient_is_that_of_finite_differences(sorter: Sorter):
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(3, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 4, 7])

    assert torch.autograd.gradcheck(lambda x: sorter.label_topk_probability(x, labels, _ks(sorter)), (scores,))
    assert torch.autograd.gradcheck(lambda x: sorter.label_topk_log_probability(x, labels, _ks(sorter)), (scores,))


@every_sorter
@few_examples
@given(scores=score_lists, relaxed=st.booleans(), m=st.sampled_from([6, 8, None]))
def test_no_gradient_pushes_the_label_down(sorter: Sorter, scores: list[float], relaxed: bool, m: int | None):
    p_k = _relaxed_only(sorter) if relaxed else _p_k(sorter)

    _, gradient = _loss_and_gradient(sorter, _every_label(scores), p_k, m)

    assert (gradient.diagonal() <= 0).all()


@pytest.mark.parametrize("sorter", [*_DEFAULTS.values(), *_NETWORKS.values()], ids=[*_DEFAULTS, *_NETWORKS])
@few_examples
@given(scores=score_lists)
def test_k_of_one_is_softmax_cross_entropy(sorter: Sorter, scores: list[float]):
    rows = _every_label(scores)

    losses, gradient = _loss_and_gradient(sorter, rows, {1: 1.0}, None)

    expected = F.cross_entropy(rows.requires_grad_(), _LABELS, reduction="none")
    torch.testing.assert_close(expected, losses, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(expected.sum(), rows)[0], gradient, atol=1e-5, rtol=1e-5)


@every_sorter
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4], ids=["ties", "ordinary", "huge"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_loss_and_gradient_are_finite(sorter: Sorter, scale: float, dtype: torch.dtype):
    rows = (torch.linspace(-1, 1, 10).expand(10, 10) * scale).to(dtype)

    for p_k in (_p_k(sorter), _relaxed_only(sorter)):
        losses, gradient = _loss_and_gradient(sorter, rows, p_k)

        assert losses.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient.dtype == dtype
        assert losses.dtype == torch.promote_types(dtype, torch.float32)


@every_sorter
@few_examples
@given(scores=wild_score_lists)
def test_any_mixture_of_ties_and_extremes_is_finite(sorter: Sorter, scores: list[float]):
    losses, gradient = _loss_and_gradient(sorter, _every_label(scores), _relaxed_only(sorter))

    assert losses.isfinite().all()
    assert gradient.isfinite().all()


@every_family
def test_a_tie_does_not_blow_up_the_gradient(sorter: Sorter):
    _, gradient = _loss_and_gradient(sorter, torch.zeros(10, 10), _p_k(sorter))

    assert gradient.norm() < 50


@every_sorter
def test_classes_ruled_out_by_minus_infinity_leave_the_rest_finite(sorter: Sorter):
    rows = torch.full((10, 10), -torch.inf)
    rows[:, :4] = torch.tensor([1.0, -2.0, 0.5, 0.0])

    losses, gradient = _loss_and_gradient(sorter, rows, _p_k(sorter))

    assert losses[:4].isfinite().all()
    assert gradient[:4].isfinite().all()
    assert 0 == gradient[:4, 4:].abs().max()


@every_sorter
def test_a_nan_logit_is_not_hidden(sorter: Sorter):
    rows = torch.randn(10, 10)
    rows[:, 3] = torch.nan

    losses, _ = _loss_and_gradient(sorter, rows, _p_k(sorter))

    assert losses.isnan().all()


@log_domain_sorters
def test_a_hopeless_sample_is_not_capped(sorter: Sorter):
    near, far = torch.zeros(10, 10), torch.zeros(10, 10)
    near[torch.arange(10), _LABELS] = -100.0
    far[torch.arange(10), _LABELS] = -200.0

    losses, gradient = _loss_and_gradient(sorter, far, _p_k(sorter))

    assert (losses > _loss_and_gradient(sorter, near, _p_k(sorter))[0] + 10).all()
    assert (gradient.diagonal() < -1e-3).all()


@every_sorter
def test_pickled_loss_gives_the_same_answer(sorter: Sorter):
    loss = TopKCrossEntropy(k=_p_k(sorter), sorter=sorter, m=8)
    logits = torch.randn(10, 10)

    again = pickle.loads(pickle.dumps(loss))

    assert sorter == again.sorter
    assert hash(sorter) == hash(again.sorter)
    torch.testing.assert_close(loss(logits, _LABELS), again(logits, _LABELS), rtol=0, atol=0)


@every_family
def test_autocast_does_not_lower_the_precision(sorter: Sorter):
    rows = torch.randn(10, 10)
    expected, _ = _loss_and_gradient(sorter, rows, _p_k(sorter))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = _loss_and_gradient(sorter, rows, _p_k(sorter))

    torch.testing.assert_close(expected, losses, rtol=0, atol=0)


@every_family
def test_tables_made_in_inference_mode_serve_training(sorter: Sorter):
    p_k = {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.3, 4: 0.7}
    loss = TopKCrossEntropy(k=p_k, sorter=sorter, m=9)
    with torch.inference_mode():
        loss(torch.randn(10, 10), _LABELS)

    logits = torch.randn(10, 10, requires_grad=True)
    loss(logits, _LABELS).backward()

    assert logits.grad is not None


@tempered_sorters
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_out_of_range_is_refused(sorter: Sorter, value: float):
    name = "steepness" if isinstance(sorter, SortingNetwork) else "temperature"

    with pytest.raises(ValueError, match=f"{name} is .*; give a finite number above 0"):
        replace(sorter, **{name: value})
