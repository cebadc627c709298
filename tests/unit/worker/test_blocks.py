import itertools
from functools import cache

import pytest
import timm
import torch
from torch import nn

from podium.worker.fit import FitError
from podium.worker.fit.backbones import resolve
from podium.worker.fit.blocks import blocks, freeze_below

#: A model of many families each, with the side of a picture that it takes.
MODELS = {
    "densenet121": 32,
    "googlenet": 64,
    "mnasnet0_5": 32,
    "mobilenet_v3_small": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "vgg11_bn": 32,
    "vit_b_32": 224,
    "timm/convnext_atto": 32,
    "timm/regnety_002": 32,
    "timm/test_byobnet": 32,
    "timm/test_efficientnet": 32,
    "timm/test_vit": 160,
}


@cache
def on_meta(name: str) -> tuple[nn.Module, frozenset[str]]:
    backbone = resolve(name)
    with torch.device("meta"):
        return backbone.build(5).eval(), backbone.classifier_parameters()


@pytest.mark.parametrize(("name", "side"), MODELS.items())
def test_every_parameter_is_in_one_block_and_the_features_go_through_them_in_order(name, side):
    model, classifier = on_meta(name)

    found = blocks(model, classifier)

    placed = {parameter: place for place, block in enumerate(found) for parameter in block.parameters}
    assert sorted(itertools.chain.from_iterable(block.parameters for block in found)) == sorted(placed)
    assert set(placed) == {parameter for parameter, _ in model.named_parameters()}
    assert classifier == set(found[-1].parameters)
    assert len(found) >= 5
    run = [placed[parameter] for parameter in _in_order_of_use(model, side)]
    assert sorted(run) == run


def _in_order_of_use(model: nn.Module, side: int) -> list[str]:
    """The weight of each module that has one, in the order in which a picture meets them."""
    used: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm)):
            module.register_forward_pre_hook(lambda _, __, name=name: used.append(f"{name}.weight"))
    with torch.device("meta"):
        model(torch.zeros(2, 3, side, side))
    return used


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("timm/resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("swin_t", [*(f"features.{stage}" for stage in range(8)), "head"]),
        ("timm/convnext_atto", ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "head"]),
        ("vgg11", [*(f"features.{place}" for place in (0, 3, 6, 8, 11, 13, 16, 18)), "classifier.0", "classifier.6"]),
    ],
)
def test_blocks_are_what_a_practitioner_would_call_so(name, first):
    model, classifier = on_meta(name)

    found = blocks(model, classifier)

    assert len(first) == len(found)
    assert all(block.parameters[0].startswith(start) for block, start in zip(found, first, strict=True))


def test_a_transformers_layers_are_its_blocks_with_the_last_norm_in_the_last():
    model, classifier = on_meta("vit_b_32")

    found = blocks(model, classifier)

    assert len(found) == 14
    assert {"class_token", "conv_proj.weight", "encoder.pos_embedding"} < set(found[0].parameters)
    assert "encoder.layers.encoder_layer_0.ln_1.weight" == found[1].parameters[0]
    assert "encoder.ln.weight" in found[12].parameters


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "timm/test_resnet", "timm/test_vit"])
def test_only_the_last_blocks_and_the_classifier_are_trained(name):
    model, classifier = on_meta(name)
    known = blocks(model, classifier)
    for count in range(1, len(known)):
        freeze_below(model, count, classifier)

        trained = {parameter for parameter, value in model.named_parameters() if value.requires_grad}
        assert trained == set(itertools.chain.from_iterable(block.parameters for block in known[-1 - count :]))


def test_what_is_frozen_stays_as_it_is_while_the_rest_learns():
    backbone = resolve("timm/test_resnet")
    model = backbone.build(5)
    frozen = freeze_below(model, 1, backbone.classifier_parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}

    model.train()
    for module in frozen:
        module.eval()
    model(torch.rand(4, 3, 64, 64)).square().sum().backward()
    torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1).step()

    changed = {name.partition(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"layer4", "fc"}


def test_dropout_is_off_below_the_last_blocks_and_on_above():
    model = timm.create_model("test_vit", num_classes=5, pos_drop_rate=0.1, drop_rate=0.1, proj_drop_rate=0.1)

    frozen = set(freeze_below(model, 1, {"head.weight", "head.bias"}))

    dropouts = {name: module in frozen for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert dropouts["pos_drop"]
    *below, last = [off for name, off in dropouts.items() if name.endswith(".mlp.drop1")]
    assert all(below)
    assert not last
    assert not dropouts["head_drop"]


def test_more_blocks_than_there_are_is_the_users_mistake():
    model, classifier = on_meta("resnet18")

    with pytest.raises(FitError, match=r"blocks is 6, but the backbone has 5 before its classifier"):
        freeze_below(model, 6, classifier)
