"""The catalogue against the libraries that it was made from."""

import json
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from podium.jobs import spec
from podium.jobs.catalogue import BackboneCard, Card, backbones, find_backbone, sorters
from podium.jobs.spec import Interpolation

GENERATOR = Path(__file__).resolve().parents[3] / "jobs" / "generate_backbones.py"


def known(name: str) -> BackboneCard:
    card = find_backbone(name)
    assert card is not None
    return card


def test_a_plain_name_that_both_libraries_know_is_torchvisions():
    assert "torchvision/resnet50" == known("resnet50").name
    assert "timm/resnet50" == known("timm/resnet50").name
    assert "timm/tf_efficientnet_lite0" == known("tf_efficientnet_lite0").name


@pytest.mark.parametrize("name", ["", "resnet", "timm/", "jax/resnet50", "torchvision/tf_efficientnet_lite0"])
def test_an_unknown_name_is_none(name):
    assert find_backbone(name) is None


def test_backbones_are_sorted_and_usable():
    names = [card.name for card in backbones()]

    assert sorted(set(names)) == names
    assert len(names) > 1000
    for card in backbones():
        assert 3 == len(card.mean) == len(card.std)
        assert 0 < card.crop_fraction <= 1
        assert 8 <= card.image_size <= 2048
        assert all(value > 0 for value in card.std)


def test_every_sorter_of_the_spec_has_its_card_in_the_order_of_the_oneof():
    from podium.api.v1.spec_pb2 import JobSpec

    members = [field.name for field in JobSpec.DESCRIPTOR.oneofs_by_name["sorter"].fields]

    assert members == [card.name for card in sorters()]


def test_a_sorters_defaults_are_those_of_the_spec():
    cards = {card.name: card for card in sorters()}
    defaults = {item.name: json.loads(item.default_json) for item in cards["odd_even"].parameters}

    assert {"steepness": 2.0, "distribution": "DISTRIBUTION_CAUCHY", "art_lambda": 0.5} == defaults
    assert [item.name for item in fields(spec.Subset)] == [item.name for item in cards["subset"].parameters]


@pytest.mark.filterwarnings("ignore")
def test_the_catalogue_is_what_the_installed_libraries_say():
    found = spec_from_file_location("generate_backbones", GENERATOR)
    assert found is not None
    assert found.loader is not None
    generator = module_from_spec(found)
    found.loader.exec_module(generator)
    for name in ("resnet50", "vit_b_16", "inception_v3", "swin_v2_t", "mobilenet_v3_large"):
        parameters, *_ = generator.of_torchvision(name)
        assert parameters == known(f"torchvision/{name}").parameters
        assert_same(generator.of_torchvision(name), known(f"torchvision/{name}"))
    for name in ("resnet50", "tf_efficientnet_lite0", "vit_base_patch16_224", "convnext_tiny", "beit_base_patch16_224"):
        assert_same(generator.of_timm(name, count=False), known(f"timm/{name}"))
    assert generator.of_timm("tf_efficientnet_lite0")[0] == known("timm/tf_efficientnet_lite0").parameters


def assert_same(entry, card) -> None:
    _, own, tags = entry

    assert row(card) == own
    assert {tag: row(other) for tag, other in card.tags.items()} == tags


def row(card: Card) -> list[object]:
    name = {Interpolation.BILINEAR: "bilinear", Interpolation.BICUBIC: "bicubic"}[card.interpolation]
    return [card.image_size, card.crop_fraction, name, list(card.mean), list(card.std)]
