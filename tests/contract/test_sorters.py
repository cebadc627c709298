"""The laws every sorter obeys, whatever its family, and those the loss adds on top.

Long on purpose: one suite judges every sorter, and a law that stood elsewhere would be forgotten by the next one.
"""

import pickle
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from podium.topk import (
    BASELINES,
    SORTERS,
    ClosedFormSorter,
    DFTopK,
    Distribution,
    NonFiniteLogitsError,
    Softmax,
    Sorter,
    SortingNetwork,
    Sparse,
    Surrogate,
    TopKCrossEntropy,
    parameters,
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
_OTHERS = {"sparse-2": Sparse(p=2, regularization=3.0), "sparse-narrow": Sparse(regularization=0.5)}
# The laws of comparators are the same in all three networks, so that drawn examples need one network with all of them.
_LAWS = {name: sorter for name, sorter in _NETWORKS.items() if name.startswith("odd_even")}
_ALL = {**_DEFAULTS, **_LAWS, **{f"{name}-warm": sorter for name, sorter in _WARM.items()}, **_OTHERS}
_CLOSED = {name: sorter for name, sorter in {**_ALL, **_NETWORKS}.items() if isinstance(sorter, ClosedFormSorter)}
# The others have a probability that is exactly zero, or underflows, for a hopeless sample.
_LOG_DOMAIN = {
    name: sorter
    for name, sorter in _ALL.items()
    if not isinstance(sorter, SortingNetwork | Sparse) and name != "sinkhorn_sort"
}
_SURROGATES: dict[str, Surrogate] = {**_DEFAULTS, **{name: family() for name, family in BASELINES.items()}}
_LABELS = torch.arange(10)

every_sorter = pytest.mark.parametrize("sorter", _ALL.values(), ids=_ALL)
every_family = pytest.mark.parametrize("sorter", _DEFAULTS.values(), ids=_DEFAULTS)
every_surrogate = pytest.mark.parametrize("sorter", _SURROGATES.values(), ids=_SURROGATES)
closed_forms = pytest.mark.parametrize("sorter", _CLOSED.values(), ids=_CLOSED)
log_domain_sorters = pytest.mark.parametrize("sorter", _LOG_DOMAIN.values(), ids=_LOG_DOMAIN)
few_examples = settings(deadline=None, max_examples=10)
score_lists = st.lists(st.floats(-20, 20, width=32), min_size=10, max_size=10)
wild_score_lists = st.lists(st.sampled_from([-1e4, -3.0, 0.0, 0.001, 3.0, 1e4]), min_size=10, max_size=10)


def _ks(sorter: Sorter) -> tuple[int, ...]:
    return (1,) if isinstance(sorter, Softmax) else (1, 2, 5)


def _p_k(sorter: Surrogate) -> dict[int, float]:
    return {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.25, 5: 0.75}


def _relaxed_only(sorter: Surrogate) -> dict[int, float]:
    return {1: 1.0} if isinstance(sorter, Softmax) else {5: 1.0}


def _every_label(scores: list[float] | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Repeat one row of scores, so that each class is the label once."""
    return torch.as_tensor(scores, dtype=dtype).expand(10, 10).clone()


def _harden(sorter: Any) -> Any:
    hardest = {"steepness": 1e6, "temperature": 1e-6}
    if hasattr(sorter, "iterations"):
        # Sinkhorn converges ever more slowly as its regularization falls.
        hardest = {"regularization": 2e-4, "iterations": 1500}
    elif hasattr(sorter, "regularization"):
        hardest = {"regularization": 1e-6}
    return replace(sorter, **{name: value for name, value in hardest.items() if hasattr(sorter, name)})


def _loss_and_gradient(
    sorter: Surrogate, logits: Tensor, p_k: dict[int, float], m: int | None = 8
) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().requires_grad_()
    torch.manual_seed(0)
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
@given(scores=st.one_of(score_lists, wild_score_lists))
def test_a_better_score_of_the_label_never_costs_probability(sorter: Sorter, scores: list[float]):
    rows = _every_label(scores).requires_grad_()
    c = sorter.label_topk_probability(rows, _LABELS, _ks(sorter))

    slopes = [torch.autograd.grad(c[:, k].sum(), rows, retain_graph=True)[0].diagonal() for k in range(c.shape[1])]

    assert torch.stack(slopes).isfinite().all()
    assert (torch.stack(slopes) >= 0).all()


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
    if isinstance(sorter, RowSorter | DFTopK):
        pytest.skip("NeuralSort and SoftSort cap the mass of a class, DFTopK promises no sum")
    rows = _every_label(scores, torch.float64)
    if isinstance(sorter, SortingNetwork):
        # Equal classes start in the same lane and not each in its own.
        rows = rows + torch.linspace(0, 1e-3, 10, dtype=torch.float64)

    total = sorter.label_topk_probability(rows, _LABELS, _ks(sorter)).sum(0)

    torch.testing.assert_close(torch.tensor(_ks(sorter), dtype=torch.float64), total, atol=1e-5, rtol=1e-5)


@every_sorter
def test_output_has_the_leading_dimensions_of_the_labels(sorter: Sorter):
    scores = torch.randn(2, 3, 4, 10)
    labels = torch.randint(10, (2, 3, 4))

    c = sorter.label_topk_probability(scores, labels, _ks(sorter))

    assert (2, 3, 4, len(_ks(sorter))) == c.shape
    torch.testing.assert_close(sorter.label_topk_probability(scores[1, 2], labels[1, 2], _ks(sorter)), c[1, 2])


@closed_forms
@pytest.mark.parametrize("m", [7, 10, 16])
def test_converges_to_the_hard_top_k(sorter: Sorter, m: int):
    generator = torch.Generator().manual_seed(m)
    scores = torch.stack([torch.randperm(m, generator=generator) for _ in range(m)]).double()
    labels = torch.arange(m)
    rank = (scores > scores.gather(1, labels[:, None])).sum(1)
    expected = torch.stack([rank < k for k in (1, 2, 5)], dim=1).double()

    c = _harden(sorter).label_topk_probability(scores, labels, (1, 2, 5))

    # A Cauchy tail leaves 1e-6 / pi at every comparator, which layers add up.
    torch.testing.assert_close(expected, c, atol=2e-2 if hasattr(sorter, "iterations") else 1e-4, rtol=0)


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


@every_sorter
@few_examples
@given(scores=score_lists, order=st.permutations(range(10)))
def test_reordering_the_classes_changes_nothing(sorter: Sorter, scores: list[float], order: list[int]):
    rows = _every_label(scores, torch.float64)
    places = torch.tensor(order)

    before = sorter.label_topk_probability(rows, places, _ks(sorter))
    after = sorter.label_topk_probability(rows[:, places], _LABELS, _ks(sorter))

    torch.testing.assert_close(before, after)


@closed_forms
def test_the_closed_gradient_is_that_of_finite_differences(sorter: ClosedFormSorter):
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    scores = spread * torch.randn(3, 9, dtype=torch.float64, generator=generator)
    ranked = torch.cat([scores[:, :1], scores[:, 1:].sort(descending=True).values], dim=1)
    ks = (1, 1.5, 2, 5) if sorter.fractional_k else (1, 2, 5)
    step = 1e-6

    terms = sorter.terms(ranked, ks, gradient=True)

    differences = []
    for j in range(9):
        nudge = torch.zeros_like(ranked)
        nudge[:, j] = step
        up, down = (sorter.terms(ranked + sign * nudge, ks, gradient=False).log_probability for sign in (1, -1))
        differences.append((up - down) / (2 * step))
    assert terms.gradient is not None
    torch.testing.assert_close(torch.stack(differences, dim=-1), terms.gradient, atol=2e-5, rtol=2e-5)


@every_family
def test_autograd_agrees_with_finite_differences(sorter: Sorter):
    # Labels that lead nobody: their gradient is nowhere left out.
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(3, 8, dtype=torch.float64, generator=generator).sort(descending=True).values.requires_grad_()
    labels, ks = torch.tensor([5, 6, 7]), (1,) if isinstance(sorter, Softmax) else (1, 2)

    assert torch.autograd.gradcheck(lambda x: sorter.label_topk_probability(x, labels, ks), (scores,), fast_mode=True)
    assert torch.autograd.gradcheck(
        lambda x: sorter.label_topk_log_probability(x, labels, ks), (scores,), fast_mode=True
    )
    p_k = {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.25, 2: 0.75}
    assert torch.autograd.gradcheck(
        lambda x: topk_cross_entropy(x, labels, k=p_k, sorter=sorter, m=7), (scores,), fast_mode=True
    )


@every_surrogate
@pytest.mark.parametrize("ask", ["penalty", "square", "hessian", "transforms"])
def test_a_second_derivative_is_refused_and_not_zero(sorter: Surrogate, ask: str):
    if isinstance(sorter, Softmax):
        pytest.skip("softmax is left to autograd, which has its second derivative")
    logits = torch.randn(3, 10, requires_grad=True)

    def loss(logits: Tensor) -> Tensor:
        return topk_cross_entropy(logits, torch.arange(3), k={1: 0.5, 5: 0.5}, sorter=sorter)

    def twice() -> object:
        match ask:
            case "hessian":
                # With its zeros for what is not connected, which must not hide the refusal.
                return torch.autograd.functional.hessian(loss, logits)  # type: ignore[no-untyped-call]  # torch's gap
            case "transforms":
                return torch.func.grad(lambda inner: torch.func.grad(loss)(inner).sum())(logits)
        once = loss(logits).square() if ask == "square" else loss(logits)
        (gradient,) = torch.autograd.grad(once, logits, create_graph=True)
        return torch.autograd.grad(once + gradient.square().sum(), logits)

    with pytest.raises(RuntimeError, match="no second derivatives"):
        twice()


@every_surrogate
@few_examples
@given(scores=score_lists, relaxed=st.booleans(), m=st.sampled_from([6, 8, None]))
def test_no_gradient_pushes_the_label_down(sorter: Surrogate, scores: list[float], relaxed: bool, m: int | None):
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


@every_surrogate
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4], ids=["ties", "ordinary", "huge"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_loss_and_gradient_are_finite(sorter: Surrogate, scale: float, dtype: torch.dtype):
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


@every_surrogate
def test_twenty_thousand_classes_are_no_special_case(sorter: Surrogate):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10, 21_841, generator=generator)

    losses, gradient = _loss_and_gradient(sorter, logits, _p_k(sorter), 16)

    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    if not sorter.uses_all_scores:
        assert (gradient != 0).sum(1).max() <= 16
    if not isinstance(sorter, SortingNetwork):
        losses, gradient = _loss_and_gradient(sorter, logits, _p_k(sorter), None)

        assert losses.isfinite().all()
        assert gradient.isfinite().all()


@every_family
def test_a_tie_does_not_blow_up_the_gradient(sorter: Sorter):
    _, gradient = _loss_and_gradient(sorter, torch.zeros(10, 10), _p_k(sorter))

    assert gradient.norm() < 50


@every_sorter
def test_a_tie_does_not_betray_the_label(sorter: Sorter):
    c = sorter.label_topk_probability(torch.zeros(10, 10), _LABELS, _ks(sorter))

    torch.testing.assert_close(c, c[:1].expand_as(c))
    if not isinstance(sorter, SortingNetwork | DFTopK):
        torch.testing.assert_close(torch.tensor(_ks(sorter)) / 10, c[0], atol=1e-5, rtol=1e-4)


@every_surrogate
def test_classes_ruled_out_by_minus_infinity_leave_the_rest_finite(sorter: Surrogate):
    rows = torch.full((10, 10), -torch.inf)
    rows[:, :4] = torch.tensor([1.0, -2.0, 0.5, 0.0])

    losses, gradient = _loss_and_gradient(sorter, rows, _p_k(sorter))

    assert losses[:4].isfinite().all()
    assert gradient[:4].isfinite().all()
    assert 0 == gradient[:4, 4:].abs().max()


@every_surrogate
def test_a_logit_that_is_no_number_is_named_with_its_row(sorter: Surrogate):
    rows = torch.randn(10, 10)

    for value in (torch.nan, torch.inf):
        rows[4, 3] = value
        with pytest.raises(NonFiniteLogitsError, match=r"logits\[4\] hold NaN or \+inf"):
            _loss_and_gradient(sorter, rows, _p_k(sorter))


@log_domain_sorters
def test_a_hopeless_sample_is_not_capped(sorter: Sorter):
    near, far = torch.zeros(10, 10), torch.zeros(10, 10)
    near[torch.arange(10), _LABELS] = -100.0
    far[torch.arange(10), _LABELS] = -200.0

    losses, gradient = _loss_and_gradient(sorter, far, _p_k(sorter))

    assert (losses > _loss_and_gradient(sorter, near, _p_k(sorter))[0] + 10).all()
    assert (gradient.diagonal() < -1e-3).all()


@every_sorter
def test_a_cap_that_was_asked_for_holds_and_fades_the_gradient(sorter: Sorter):
    far = torch.zeros(10, 10)
    far[torch.arange(10), _LABELS] = -200.0
    far.requires_grad_()

    losses = topk_cross_entropy(far, _LABELS, k=_p_k(sorter), sorter=sorter, m=8, epsilon=0.1, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), far)

    assert (losses <= 2.303).all()
    _, uncapped = _loss_and_gradient(sorter, far, _p_k(sorter))
    assert gradient.norm() < 0.95 * uncapped.norm() or uncapped.norm() < 1e-6


@every_surrogate
def test_pickled_loss_gives_the_same_answer(sorter: Surrogate):
    loss = TopKCrossEntropy(k=_p_k(sorter), sorter=sorter, m=8, weight=torch.rand(10))
    logits = torch.randn(10, 10)

    again = pickle.loads(pickle.dumps(loss))

    assert sorter == again.sorter
    assert hash(sorter) == hash(again.sorter)
    answers = []
    for module in (loss, again):
        torch.manual_seed(0)
        answers.append(module(logits, _LABELS))
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


@every_surrogate
def test_autocast_does_not_lower_the_precision(sorter: Surrogate):
    rows = torch.randn(10, 10)
    expected, _ = _loss_and_gradient(sorter, rows, _p_k(sorter))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = _loss_and_gradient(sorter, rows, _p_k(sorter))

    torch.testing.assert_close(expected, losses, rtol=0, atol=0)


@every_surrogate
def test_tables_made_in_inference_mode_serve_training(sorter: Surrogate):
    p_k = {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.3, 4: 0.7}
    loss = TopKCrossEntropy(k=p_k, sorter=sorter, m=9)
    with torch.inference_mode():
        loss(torch.randn(10, 10), _LABELS)

    logits = torch.randn(10, 10, requires_grad=True)
    loss(logits, _LABELS).backward()

    assert logits.grad is not None


@every_surrogate
def test_a_run_under_fake_tensors_leaves_nothing_behind(sorter: Surrogate):
    # Numbers that no other test has, so that nothing of them is there yet.
    k = {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.47, 4: 0.53}
    loss = TopKCrossEntropy(k=k, sorter=sorter, m=7)

    with FakeTensorMode():
        assert () == loss(torch.randn(3, 10), torch.zeros(3, dtype=torch.int64)).shape
    (gradient,) = torch.autograd.grad(loss(logits := torch.randn(3, 10, requires_grad=True), torch.arange(3)), logits)

    assert Tensor is type(gradient)


@every_surrogate
def test_leading_dimensions_are_samples(sorter: Surrogate):
    logits, labels = torch.randn(2, 5, 10), torch.randint(10, (2, 5))
    loss = TopKCrossEntropy(k=_p_k(sorter), sorter=sorter, m=8, reduction="none")

    torch.manual_seed(0)
    together = loss(logits, labels)
    torch.manual_seed(0)
    flat = loss(logits.flatten(0, 1), labels.flatten())

    torch.testing.assert_close(flat, together.flatten())


@every_surrogate
def test_nothing_waits_for_the_device(sorter: Surrogate):
    # A tensor without values cannot be read: whatever asked the device for a number would fail.
    logits = torch.empty(6, 40, device="meta", requires_grad=True)
    labels = torch.empty(6, dtype=torch.int64, device="meta")
    loss = TopKCrossEntropy(k=_p_k(sorter), sorter=sorter, m=12, label_smoothing=0.1).to("meta")

    torch.autograd.backward(loss(logits, labels))

    assert logits.grad is not None


@every_surrogate
def test_compiles_whole_and_agrees(sorter: Surrogate):
    # Iterations and the layers of networks are written out one by one: the fewest that are more than one.
    short = {"iterations": 2} if hasattr(sorter, "iterations") else {}
    p_k = {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.25, 2: 0.75}
    loss = TopKCrossEntropy(k=p_k, sorter=replace(sorter, **short), m=4)
    logits = torch.randn(10, 20)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")

    answers = []
    for module in (loss, compiled):
        leaf = logits.clone().requires_grad_()
        torch.manual_seed(0)
        value = module(leaf, _LABELS)
        value.backward()
        answers.append((value.detach(), leaf.grad))

    # A compiler has its own random numbers.
    tolerance = 1e-5 if "noise" not in {item.name for item in parameters(type(sorter))} else 60
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=tolerance)


@every_family
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_batches_of_batches_by_vmap(sorter: Sorter):
    logits, labels = torch.randn(3, 10, 20), torch.randint(20, (3, 10))
    loss = TopKCrossEntropy(k=_p_k(sorter), sorter=sorter, m=8)

    values = torch.func.vmap(loss)(logits, labels)
    gradients = torch.func.vmap(torch.func.grad(loss))(logits, labels)

    leaf = logits.requires_grad_()
    expected = torch.stack([loss(leaf[i], labels[i]) for i in range(3)])
    torch.testing.assert_close(expected, values)
    torch.testing.assert_close(torch.autograd.grad(expected.sum(), leaf)[0], gradients)


_NUMBERS = [
    (family, item)
    for family in [*SORTERS.values(), *BASELINES.values()]
    for item in parameters(family)
    if isinstance(item.default, int | float)
]


@pytest.mark.parametrize(
    ("family", "item"), _NUMBERS, ids=[f"{family.__name__}-{item.name}" for family, item in _NUMBERS]
)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1"])
def test_a_parameter_out_of_range_is_refused_with_its_range(family: type[Surrogate], item: Any, value: Any):
    with pytest.raises(ValueError, match=f"{item.name} is .*; give a (finite|whole) number"):
        family(**{item.name: value})


@pytest.mark.parametrize("family", [*SORTERS.values(), *BASELINES.values()])
def test_every_card_is_filled_in(family: type[Surrogate]):
    card = family.card

    assert card.summary.endswith(".")
    assert card.cost.startswith(("O(", "The fewest"))
    assert card.citation or family is Softmax
    assert all(caveat.endswith(".") for caveat in card.caveats)
    assert all(item.summary.endswith(".") for item in parameters(family))


def test_no_two_families_share_a_card():
    cards = [family.card.summary for family in [*SORTERS.values(), *BASELINES.values()]]

    assert all(one != other for one, other in pairwise(sorted(cards)))


@pytest.mark.parametrize("name", [name for name in SORTERS if name not in ("softmax", "soft_sort")])
def test_a_head_of_zeros_starts_to_learn(name: str):
    _, gradient = _loss_and_gradient(_DEFAULTS[name], torch.zeros(10, 10), {5: 1.0}, None)

    assert (gradient.diagonal() < -1e-3).all()
