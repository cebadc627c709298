"""What a trainer asks of a loss: with the softmax sorter it is torch's cross entropy, whatever the options."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from podium.topk import LapSum, Softmax, Sorter, Subset, TopKCrossEntropy, topk_cross_entropy

_HALVES = {1: 0.5, 5: 0.5}


def _inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(12, 10, generator=generator)
    labels = torch.randint(10, (12,), generator=generator)
    return logits, labels, torch.rand(10, generator=generator) + 0.1


def _mixed(labels: Tensor, share: float = 0.7) -> Tensor:
    one_hot = F.one_hot(labels, 10).float()
    return share * one_hot + (1 - share) * one_hot.roll(1, 0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_softmax_with_every_option_is_torchs_cross_entropy(
    reduction: Any, smoothing: float, weighted: bool, ignored: bool
):
    logits, labels, weight = _inputs()
    if ignored:
        labels[3:6] = -100
    options: dict[str, Any] = {"weight": weight if weighted else None, "label_smoothing": smoothing}

    loss = topk_cross_entropy(logits, labels, k={1: 1.0}, sorter=Softmax(), reduction=reduction, **options)

    torch.testing.assert_close(F.cross_entropy(logits, labels, reduction=reduction, **options), loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_with_soft_targets_is_torchs_cross_entropy(smoothing: float, weighted: bool):
    logits, labels, weight = _inputs()
    options: dict[str, Any] = {"weight": weight if weighted else None, "label_smoothing": smoothing}

    for targets in (_mixed(labels), torch.rand(12, 10).softmax(-1)):
        loss = topk_cross_entropy(logits, targets, k={1: 1.0}, sorter=Softmax(), **options)

        torch.testing.assert_close(F.cross_entropy(logits, targets, **options), loss)


@pytest.mark.parametrize("sorter", [Subset(), LapSum()])
def test_a_mixed_target_is_the_mixture_of_both_losses(sorter: Sorter):
    logits, labels, weight = _inputs()
    one, other = (
        topk_cross_entropy(logits, y, k=_HALVES, sorter=sorter, m=8, reduction="none") for y in (labels, labels.roll(1))
    )

    mixed = topk_cross_entropy(logits, _mixed(labels), k=_HALVES, sorter=sorter, m=8, reduction="none")
    weighted = topk_cross_entropy(
        logits, _mixed(labels), k=_HALVES, sorter=sorter, m=8, reduction="none", weight=weight
    )

    torch.testing.assert_close(0.7 * one + 0.3 * other, mixed)
    torch.testing.assert_close(0.7 * weight[labels] * one + 0.3 * weight[labels.roll(1)] * other, weighted)


def test_a_one_hot_target_is_its_label():
    logits, labels, _ = _inputs()

    hard = topk_cross_entropy(logits, labels, k=_HALVES, sorter=Subset())

    torch.testing.assert_close(hard, topk_cross_entropy(logits, _mixed(labels, 1.0), k=_HALVES, sorter=Subset()))


def test_a_smoothed_label_and_its_smoothed_target_cost_the_same():
    logits, labels, _ = _inputs()
    smoothed = 0.9 * _mixed(labels, 1.0) + 0.01

    by_label = topk_cross_entropy(logits, labels, k=_HALVES, sorter=Subset(), label_smoothing=0.1)
    by_target = topk_cross_entropy(logits, smoothed, k=_HALVES, sorter=Subset())
    by_option = topk_cross_entropy(logits, _mixed(labels, 1.0), k=_HALVES, sorter=Subset(), label_smoothing=0.1)

    torch.testing.assert_close(by_label, by_target)
    torch.testing.assert_close(by_label, by_option)


def test_smoothing_asks_nothing_of_a_class_that_is_ruled_out():
    logits, labels, _ = _inputs()
    logits[:, 9], labels[labels == 9] = -torch.inf, 0
    logits.requires_grad_()

    loss = topk_cross_entropy(logits, labels, k=_HALVES, sorter=Subset(), label_smoothing=0.1)
    torch.autograd.backward(loss)

    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_class_weights_are_a_buffer_that_moves():
    loss = TopKCrossEntropy(k=_HALVES, sorter=Subset(), weight=torch.ones(10))

    assert ["weight"] == list(loss.state_dict())
    moved = loss.double().to("meta")

    assert moved.weight is not None
    assert (torch.float64, "meta") == (moved.weight.dtype, moved.weight.device.type)


def test_every_sample_may_have_its_own_k_distribution():
    logits, labels, _ = _inputs()
    own = torch.rand(12, 2)
    own[0], own[1] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    own = own / own.sum(-1, keepdim=True)
    leaf = logits.clone().requires_grad_()
    loss = TopKCrossEntropy(k=_HALVES, sorter=Subset(), m=8, reduction="none")

    losses = loss(leaf, labels, own)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)

    for i in range(12):
        single = logits[i : i + 1].clone().requires_grad_()
        expected = topk_cross_entropy(
            single, labels[i : i + 1], k={1: own[i, 0].item(), 5: own[i, 1].item()}, sorter=Subset(), m=8
        )
        torch.testing.assert_close(expected, losses[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.autograd.grad(expected, single)[0][0], gradient[i], atol=1e-5, rtol=1e-5)


def test_a_whole_number_is_an_integer_however_it_is_written():
    logits, labels, _ = _inputs()

    assert topk_cross_entropy(logits, labels, k={1: 0.5, 5: 0.5}, sorter=Subset()) == topk_cross_entropy(
        logits, labels, k={1.0: 0.5, 5.0: 0.5}, sorter=Subset()
    )


def test_a_fraction_of_k_lies_between_its_neighbours():
    logits, labels, _ = _inputs()
    loss = {
        k: topk_cross_entropy(logits, labels, k={k: 1.0}, sorter=LapSum(), reduction="none") for k in (2, 2.25, 2.5, 3)
    }

    assert (loss[2] > loss[2.25]).all()
    assert (loss[2.25] > loss[2.5]).all()
    assert (loss[2.5] > loss[3]).all()
