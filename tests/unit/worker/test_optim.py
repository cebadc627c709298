import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from timm.optim.lamb import Lamb as TimmLamb
from torch import nn

from podium.jobs.spec import (
    Adam,
    AdamW,
    ConstantSchedule,
    CosineSchedule,
    FullFineTuning,
    ImageFolder,
    JobSpec,
    Lamb,
    LinearHead,
    Muon,
    Sgd,
    Softmax,
    StepSchedule,
)
from podium.worker.fit.backbones import resolve
from podium.worker.fit.blocks import Block, blocks
from podium.worker.fit.optim import learning_rate, optimizer, restore, set_rate, tensors

OPTIMIZERS = [
    Sgd(learning_rate=0.1, weight_decay=0.01, nesterov=True),
    Adam(learning_rate=0.01, weight_decay=0.01),
    AdamW(learning_rate=0.01, weight_decay=0.1),
    Lamb(learning_rate=0.01, weight_decay=0.1),
    Muon(learning_rate=0.01, weight_decay=0.1),
]


def asked(**fields) -> JobSpec:
    return JobSpec(
        **{
            "backbone": "resnet18",
            "tuning": FullFineTuning(),
            "dataset": ImageFolder(train="/d"),
            "sorter": Softmax(),
            **fields,
        }
    )


class Small(nn.Module):
    """A token, a filter, a norm, a depthwise filter, a hidden matrix and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 6, 1, 1))
        self.stem = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.hidden = nn.Linear(6, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.depthwise(self.norm(self.stem(images) + self.token)).mean((2, 3))
        scores: torch.Tensor = self.head(torch.relu(self.hidden(features)))
        return scores


def small() -> tuple[Small, tuple[Block, ...]]:
    torch.manual_seed(0)
    model = Small()
    return model, blocks(model, {"head.weight", "head.bias"})


def taught(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        model(torch.rand(8, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def group_of(made: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    (group,) = [group for group in made.param_groups if any(parameter is member for member in group["params"])]
    return group


@pytest.mark.parametrize("wanted", OPTIMIZERS, ids=lambda wanted: type(wanted).__name__)
def test_weight_decay_is_for_matrices_and_filters(wanted):
    model, parts = small()

    made = optimizer(asked(optimizer=wanted), model, groups_of=parts)

    for name, parameter in model.named_parameters():
        decays = name in {"stem.weight", "depthwise.weight", "hidden.weight", "head.weight"}
        assert group_of(made, parameter)["weight_decay"] == (wanted.weight_decay if decays else 0)


def test_tokens_and_tables_of_positions_do_not_decay():
    with torch.device("meta"):
        vision, swin = torchvision.models.vit_b_32(num_classes=2), torchvision.models.swin_t(num_classes=2)
        told = resolve("timm/test_vit").build(2)
        patterns = resolve("timm/xcit_nano_12_p16_224").build(2)
    vars(told)["no_weight_decay"] = lambda: {"patch_embed.proj.weight"}  # as a model of timm may say
    for model, spared in [
        (vision, {"class_token", "encoder.pos_embedding"}),
        (swin, {"features.1.0.attn.relative_position_bias_table"}),
        (told, {"cls_token", "pos_embed", "patch_embed.proj.weight"}),
        (patterns, {"cls_token", "pos_embed.token_projection.weight"}),
    ]:
        made = optimizer(asked(optimizer=AdamW(weight_decay=0.5)), model)
        assert all(group_of(made, model.get_parameter(name))["weight_decay"] == 0 for name in spared)


def test_parameters_that_are_not_trained_are_left_out():
    model, parts = small()
    model.stem.requires_grad_(False)

    made = optimizer(asked(), model, groups_of=parts)

    held = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_each_block_has_its_share_of_the_rate_of_the_block_after_it():
    backbone = resolve("resnet18")
    model = backbone.build(5)
    parts = blocks(model, backbone.classifier_parameters())
    made = optimizer(asked(tuning=FullFineTuning(layer_decay=0.5)), model, groups_of=parts)

    set_rate(made, 0.32)

    for place, name in enumerate(["fc", "layer4", "layer3", "layer2", "layer1", "conv1"]):
        for parameter in model.get_submodule(name).parameters():
            assert group_of(made, parameter)["lr"] == pytest.approx(0.32 * 0.5**place)


def test_without_layer_decay_every_parameter_has_the_rate():
    model, parts = small()
    made = optimizer(asked(), model, groups_of=parts)

    set_rate(made, 0.25)

    assert {0.25} == {group["lr"] for group in made.param_groups}


@pytest.mark.parametrize(
    ("wanted", "library"),
    [
        (Sgd(learning_rate=0.1), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (Adam(learning_rate=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
        (AdamW(learning_rate=0.01, weight_decay=0), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0)),
        (
            Lamb(learning_rate=0.01, weight_decay=0),
            lambda p: TimmLamb(p, lr=0.01, weight_decay=0, max_grad_norm=None, always_adapt=True),
        ),
    ],
    ids=["sgd", "adam", "adamw", "lamb"],
)
def test_steps_are_those_of_the_library(wanted, library):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(144, 4, bias=False))
    theirs = copy.deepcopy(ours)

    taught(ours, optimizer(asked(optimizer=wanted), ours), 3)
    taught(theirs, library(theirs.parameters()), 3)

    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_muon_is_torchs_for_hidden_matrices_and_filters_and_adamw_at_a_tenth_for_the_rest():
    ours, parts = small()
    theirs = copy.deepcopy(ours)
    wanted = Muon(learning_rate=0.02, momentum=0.9, weight_decay=0.1)
    made = optimizer(asked(optimizer=wanted), ours, groups_of=parts)
    torch.manual_seed(1)
    gradients = {name: torch.randn_like(parameter) for name, parameter in ours.named_parameters()}

    # torch's own Muon takes matrices only: the filter as what it is when flattened.
    flat = nn.Parameter(theirs.stem.weight.detach().flatten(1).clone())
    muon = torch.optim.Muon([flat, theirs.hidden.weight], lr=0.02, momentum=0.9, weight_decay=0.1)
    spared = [theirs.token, theirs.stem.bias, *theirs.norm.parameters(), theirs.depthwise.bias, theirs.hidden.bias]
    groups: list[dict[str, Any]] = [
        {"params": [*spared, theirs.head.bias], "weight_decay": 0.0},
        {"params": [theirs.depthwise.weight, theirs.head.weight]},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.002, weight_decay=0.1)
    for _ in range(3):
        for model in (ours, theirs):
            for name, parameter in model.named_parameters():
                parameter.grad = gradients[name].clone()
        flat.grad = gradients["stem.weight"].flatten(1)
        for each in (made, muon, adamw):
            each.step()

    theirs.stem.weight.data = flat.detach().view_as(theirs.stem.weight)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Both orthogonalise in bfloat16, in another order of operations.
        assert torch.allclose(one, other, atol=5e-4 if name in {"stem.weight", "hidden.weight"} else 1e-6), name


@pytest.mark.parametrize("wanted", OPTIMIZERS, ids=lambda wanted: type(wanted).__name__)
def test_an_optimizer_that_is_restored_goes_on_exactly(wanted):
    spec = asked(optimizer=wanted, tuning=FullFineTuning(layer_decay=0.5))
    model, parts = small()
    first = optimizer(spec, model, groups_of=parts)
    taught(model, first, 2)
    resumed = copy.deepcopy(model)
    second = optimizer(spec, resumed, groups_of=parts)

    restore(second, {name: value.clone() for name, value in tensors(first).items()})
    taught(model, first, 2)
    taught(resumed, second, 2)

    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), resumed.parameters(), strict=True))


def test_a_head_alone_is_trained_without_muon_and_without_layer_decay():
    head = nn.Linear(5, 3)

    made = optimizer(asked(tuning=LinearHead(), optimizer=Muon()), head)

    assert {1.0} == {group["scale"] for group in made.param_groups}
    assert {False} == {group["use_muon"] for group in made.param_groups}


SCHEDULES = st.one_of(
    st.builds(ConstantSchedule, warmup_epochs=st.floats(0, 50)),
    st.builds(CosineSchedule, warmup_epochs=st.floats(0, 50)),
    st.builds(
        StepSchedule,
        warmup_epochs=st.floats(0, 50),
        every_epochs=st.integers(1, 40),
        factor=st.floats(0.01, 1),
    ),
)


@given(schedule=SCHEDULES, epochs=st.integers(1, 60), steps=st.integers(1, 50), at=st.floats(0, 1))
def test_the_rate_is_never_above_the_peak_and_never_below_nothing(schedule, epochs, steps, at):
    spec = asked(schedule=schedule, epochs=epochs, optimizer=Sgd(learning_rate=0.3))

    assert 0 <= learning_rate(spec, int(at * epochs * steps), steps) <= 0.3


@given(schedule=SCHEDULES, epochs=st.integers(1, 60), steps=st.integers(1, 50))
def test_the_warm_up_grows_to_the_peak_without_a_jump(schedule, epochs, steps):
    spec = asked(schedule=schedule, epochs=epochs, optimizer=Sgd(learning_rate=1.0))
    plain = isinstance(schedule, StepSchedule)
    warmup = min(schedule.warmup_epochs, schedule.every_epochs if plain else epochs) * steps
    rates = [learning_rate(spec, step, steps) for step in range(math.ceil(warmup))]

    assert all(0 < before < after for before, after in itertools.pairwise(rates))
    assert all(after - before <= 1.001 / (warmup + 1) for before, after in itertools.pairwise(rates))


@given(warmup=st.integers(0, 10), epochs=st.integers(11, 40), steps=st.integers(1, 50))
def test_a_cosine_begins_at_the_peak_where_the_warm_up_ends_falls_and_ends_near_nothing(warmup, epochs, steps):
    spec = asked(schedule=CosineSchedule(warmup_epochs=warmup), epochs=epochs, optimizer=Sgd(learning_rate=1.0))

    rates = [learning_rate(spec, step, steps) for step in range(warmup * steps, epochs * steps + 1)]

    assert rates[0] == 1.0
    assert sorted(rates, reverse=True) == rates
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[-2] <= 3 / (len(rates) - 1) ** 2


def test_steps_multiply_the_rate_every_so_many_epochs():
    spec = asked(schedule=StepSchedule(every_epochs=2, factor=0.1), epochs=6, optimizer=Sgd(learning_rate=1.0))

    assert [learning_rate(spec, epoch * 5, 5) for epoch in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
