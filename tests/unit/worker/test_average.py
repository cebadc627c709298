"""The exponential moving average of a model."""

import pytest
import torch
from torch import nn

from podium.worker.fit._average import Average


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _change(module: nn.Module, step: int) -> None:
    torch.manual_seed(step + 1)
    module.train()
    module(torch.randn(8, 3))  # changes the statistics
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_the_average_follows_its_formula_and_leaves_the_module_alone():
    module = _module()
    average = Average(module, 0.9)
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    for step in range(20):
        _change(module, step)
        average.update(step)
        keep = min(0.9, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                expected[name] = keep * expected[name] + (1 - keep) * value

    own = {name: value.clone() for name, value in module.state_dict().items()}
    with average.in_place():
        for name, value in module.state_dict().items():
            wanted = expected[name] if value.is_floating_point() else own[name]
            assert torch.allclose(value, wanted, atol=1e-5), name
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("stopped_after", [1, 7])
def test_an_average_that_was_saved_goes_on_with_the_same_bits(stopped_after):
    whole, parts = _module(), _module()
    average = Average(whole, 0.8)
    first = Average(parts, 0.8)
    for step in range(10):
        _change(whole, step)
        average.update(step)
    for step in range(stopped_after):
        _change(parts, step)
        first.update(step)
    own = {name: value.clone() for name, value in first.state().items()}
    with first.in_place():
        saved = {name: value.clone() for name, value in parts.state_dict().items()}

    resumed = _module()
    resumed.load_state_dict(saved)
    second = Average(resumed, 0.8)
    second.restore(own)
    for step in range(stopped_after, 10):
        _change(resumed, step)
        second.update(step)

    with average.in_place(), second.in_place():
        assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_parameter_that_two_layers_share_comes_back_as_it_was():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    average = Average(nn.Sequential(first, second), 0.5)
    with torch.no_grad():
        first.weight.add_(1)
    average.update(100)
    before = first.weight.clone()

    with average.in_place():
        assert torch.allclose(before - 0.5, second.weight)

    assert torch.equal(before, first.weight)
