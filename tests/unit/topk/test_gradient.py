"""What autograd may be asked around a gradient in closed form; tests/contract has what every family refuses."""

import pytest
import torch

from podium.topk import BASELINES, SORTERS, Softmax, Subset, Surrogate, TopKCrossEntropy
from podium.topk._checks import Reduction

_CLOSED_FORMS = {name: family for name, family in {**SORTERS, **BASELINES}.items() if family is not Softmax}


def _loss(family: type[Surrogate]) -> TopKCrossEntropy:
    return TopKCrossEntropy(k={1: 0.5, 2: 0.5}, sorter=family(), m=4)


def test_a_second_derivative_by_what_the_loss_is_multiplied_by_is_refused_too():
    logits, factor = torch.randn(3, 6, requires_grad=True), torch.ones((), requires_grad=True)

    (gradient,) = torch.autograd.grad(factor * _loss(Subset)(logits, torch.arange(3)), logits, create_graph=True)

    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(gradient.sum(), factor)


def test_a_graph_of_the_gradient_that_nobody_differentiates_changes_nothing():
    logits, labels = torch.randn(3, 6, requires_grad=True), torch.arange(3)

    (plain,) = torch.autograd.grad(_loss(Subset)(logits, labels), logits)
    (graphed,) = torch.autograd.grad(_loss(Subset)(logits, labels), logits, create_graph=True)

    assert torch.equal(plain, graphed)


def test_losses_of_samples_may_be_changed_in_place_before_the_backward_pass():
    logits, labels = torch.randn(3, 6, requires_grad=True), torch.arange(3)
    losses = TopKCrossEntropy(k={1: 0.5, 2: 0.5}, sorter=Subset(), reduction="none")(logits, labels)

    losses.mul_(2)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)

    (single,) = torch.autograd.grad(
        TopKCrossEntropy(k={1: 0.5, 2: 0.5}, sorter=Subset(), reduction="sum")(logits, labels), logits
    )
    torch.testing.assert_close(2 * single, gradient)


@pytest.mark.parametrize("family", _CLOSED_FORMS.values(), ids=_CLOSED_FORMS)
def test_data_may_lie_elsewhere_than_on_the_default_device(family: type[Surrogate]):
    with torch.device("meta"):
        logits = torch.zeros(3, 6, device="cpu", requires_grad=True)
        loss = _loss(family)(logits, torch.arange(3, device="cpu"))
        (gradient,) = torch.autograd.grad(loss, logits)

    assert "cpu" == loss.device.type == gradient.device.type


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_many_backward_passes_at_once_agree_with_one_after_the_other(reduction: Reduction):
    loss = TopKCrossEntropy(k={1: 0.5, 2: 0.5}, sorter=Subset(), reduction=reduction)
    logits, upstreams = torch.randn(3, 6, requires_grad=True), torch.randn(4, *((3,) if reduction == "none" else ()))
    values = loss(logits, torch.arange(3))

    one_by_one = [torch.autograd.grad(values, logits, upstream, retain_graph=True)[0] for upstream in upstreams]
    (at_once,) = torch.autograd.grad(values, logits, upstreams, retain_graph=True, is_grads_batched=True)

    def one(upstream: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(values, logits, upstream, retain_graph=True)[0]

    torch.testing.assert_close(torch.stack(one_by_one), at_once)
    torch.testing.assert_close(torch.stack(one_by_one), torch.vmap(one)(upstreams))
