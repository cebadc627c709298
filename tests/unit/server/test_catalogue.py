"""The catalogues of backbones and datasets against the libraries that they were made from."""

import inspect
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torchvision.datasets

from podium.jobs.catalogue import BackboneCard, Card, backbones, datasets, find_backbone, find_dataset
from podium.jobs.spec import Interpolation

JOBS = Path(__file__).resolve().parents[3] / "jobs"


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
        assert card.parameters > 0
        assert all(value > 0 for value in card.std)


@pytest.mark.filterwarnings("ignore")
def test_the_catalogue_is_what_the_installed_libraries_say():
    generator = generator_of("backbones")
    for name in ("resnet50", "vit_b_16", "inception_v3", "swin_v2_t", "mobilenet_v3_large"):
        parameters, *_ = generator.of_torchvision(name)
        assert parameters == known(f"torchvision/{name}").parameters
        assert_same(generator.of_torchvision(name), known(f"torchvision/{name}"))
    for name in ("resnet50", "tf_efficientnet_lite0", "vit_base_patch16_224", "convnext_tiny", "beit_base_patch16_224"):
        assert_same(generator.of_timm(name, count=False), known(f"timm/{name}"))
    assert generator.of_timm("tf_efficientnet_lite0")[0] == known("timm/tf_efficientnet_lite0").parameters
    ((name, entry),) = generator.of_podium().items()
    assert entry[0] == known(f"podium/{name}").parameters
    assert_same(entry, known(f"podium/{name}"))


def generator_of(what: str) -> ModuleType:
    found = spec_from_file_location(f"generate_{what}", JOBS / f"generate_{what}.py")
    assert found is not None
    assert found.loader is not None
    generator = module_from_spec(found)
    found.loader.exec_module(generator)
    return generator


def assert_same(entry, card) -> None:
    _, own, tags = entry

    assert row(card) == own
    assert {tag: row(other) for tag, other in card.tags.items()} == tags


def row(card: Card) -> list[object]:
    name = {Interpolation.BILINEAR: "bilinear", Interpolation.BICUBIC: "bicubic"}[card.interpolation]
    return [card.image_size, card.crop_fraction, name, list(card.mean), list(card.std)]


def test_the_datasets_are_what_the_generator_writes():
    assert generator_of("datasets").document() == (JOBS / "podium" / "jobs" / "datasets.json").read_text()


@pytest.mark.parametrize("card", datasets(), ids=lambda card: card.name)
def test_torchvision_takes_what_a_dataset_is_called_with(card):
    signature = inspect.signature(getattr(torchvision.datasets, card.name))

    for split in (card.train, card.test):
        if split is not None:
            assert signature.bind("root", download=False, **split)
    assert 2 <= len(set(card.classes)) == len(card.classes)


def test_the_order_of_classes_is_that_of_the_labels_numbers():
    places = {"CIFAR10": ("dog", 5), "CIFAR100": ("worm", 99), "FashionMNIST": ("Ankle boot", 9), "SVHN": ("0", 0)}
    for name, (label, place) in places.items():
        card = find_dataset(name)
        assert card is not None
        assert label == card.classes[place]
