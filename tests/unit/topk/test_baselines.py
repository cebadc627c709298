"""The baselines against their definitions, written down anew."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from podium.topk import BASELINES, ImbalancedNoisedHinge, NoisedHinge, SmoothSVM, Surrogate, topk_cross_entropy


def _losses(logits: Tensor, labels: Tensor, sorter: object, k: dict[int, float], m: int | None = None) -> Tensor:
    return topk_cross_entropy(logits, labels, k=k, sorter=sorter, m=m, reduction="none")  # type: ignore[arg-type]  # any


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("margin", "temperature"), [(1.0, 1.0), (0.0, 0.5), (2.0, 0.1)])
def test_smooth_svm_is_the_soft_maximum_over_all_subsets(k: int, margin: float, temperature: float):
    x = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    y = 3
    subsets = list(combinations(range(7), k))
    # Berrada et al.: every k-subset scores the mean of its classes, and margin more if it misses the label.
    scores = torch.stack([x[list(s)].sum() / k + margin * (y not in s) for s in subsets]) / temperature
    right = torch.stack([x[list(s)].sum() / k for s in subsets if y in s]) / temperature
    expected = temperature * (scores.logsumexp(0) - right.logsumexp(0))

    loss = _losses(x.unsqueeze(0), torch.tensor([y]), SmoothSVM(margin=margin, temperature=temperature), {k: 1.0})

    torch.testing.assert_close(expected, loss[0])


def test_smooth_svm_without_margin_is_cross_entropy_at_k_of_one():
    logits, labels = torch.randn(5, 9), torch.arange(5)

    losses = _losses(logits, labels, SmoothSVM(margin=0.0), {1: 1.0})

    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, labels, reduction="none"), losses)


def test_noised_hinge_compares_the_label_with_a_noised_order_statistic():
    logits = torch.randn(4, 12)
    labels = torch.tensor([0, 3, 7, 11])
    by_row = [
        torch.cat([x[y : y + 1], x[torch.arange(12) != y].sort(descending=True).values])
        for x, y in zip(logits, labels.tolist(), strict=True)
    ]
    torch.manual_seed(5)
    noise = torch.randn(3, 4, 12)
    top = (torch.stack(by_row) + 0.4 * noise).sort(descending=True).values[..., 5].mean(0)
    expected = (1 + top - logits[torch.arange(4), labels]).clamp(min=0)

    torch.manual_seed(5)
    losses = _losses(logits, labels, NoisedHinge(noise=0.4, draws=3), {5: 1.0})

    torch.testing.assert_close(expected, losses)


def test_noised_hinge_teaches_whoever_stands_at_the_border():
    logits = torch.arange(10.0).unsqueeze(0).requires_grad_()

    (gradient,) = torch.autograd.grad(
        _losses(logits, torch.tensor([0]), NoisedHinge(noise=0.01), {3: 1.0}).sum(), logits
    )

    assert [-1.0, *[0.0] * 5, 1.0, 0.0, 0.0, 0.0] == gradient[0].tolist()


def test_no_noise_in_the_gradient_of_a_label_that_is_safe():
    logits = torch.tensor([[100.0, *range(9)]]).requires_grad_()

    loss = _losses(logits, torch.tensor([0]), NoisedHinge(), {3: 1.0}).sum()

    assert 0 == loss.item()
    assert 0 == torch.autograd.grad(loss, logits)[0].abs().max()


def test_a_rarer_class_has_a_larger_margin():
    logits = torch.zeros(2, 6)
    hinge = ImbalancedNoisedHinge(class_counts=(16, 1, 16, 16, 16, 16), max_margin=0.4, loss_scale=10.0, noise=1e-6)

    losses = _losses(logits, torch.tensor([0, 1]), hinge, {2: 1.0})

    torch.testing.assert_close(torch.tensor([10 * 0.2, 10 * 0.4]), losses, atol=1e-3, rtol=1e-3)


def test_a_k_distribution_averages_the_losses():
    logits, labels = torch.randn(5, 9), torch.arange(5)
    one, three = (_losses(logits, labels, SmoothSVM(), {k: 1.0}) for k in (1, 3))

    torch.testing.assert_close(0.25 * one + 0.75 * three, _losses(logits, labels, SmoothSVM(), {1: 0.25, 3: 0.75}))


@pytest.mark.parametrize(
    ("counts", "sentence"), [((1, 2, 0), "a count below 1"), ((1, 2), "2 counts for 3 classes; give one a class")]
)
def test_class_counts_that_cannot_be_are_refused(counts: tuple[int, ...], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        _losses(torch.zeros(1, 3), torch.tensor([0]), ImbalancedNoisedHinge(class_counts=counts), {1: 1.0})


@pytest.mark.parametrize("family", BASELINES.values(), ids=BASELINES)
def test_a_k_of_all_classes_is_certain_and_costs_nothing(family: type[Surrogate]):
    logits = torch.randn(4, 3, requires_grad=True)

    losses = _losses(logits, torch.arange(4) % 3, family(), {3: 1.0})
    (gradient,) = torch.autograd.grad(losses.sum(), logits)

    assert 0 == losses.abs().max()
    assert 0 == gradient.abs().max()
