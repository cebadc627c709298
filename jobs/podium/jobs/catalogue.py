"""What a spec may name: backbones of torchvision and timm, and the sorters. Needs no torch.

backbones.json is made by jobs/generate_backbones.py from the installed libraries.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any

from podium.jobs import spec
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
class ParameterCard:
    """One parameter of a sorter."""

    name: str
    default_json: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class SorterCard:
    """One sorter; `name` is its field in the spec's oneof."""

    name: str
    summary: str
    citation: str
    parameters: tuple[ParameterCard, ...]


#: A plain name that several libraries know is the first one's.
LIBRARIES = ("torchvision", "timm")


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
    document = json.loads(files("podium.jobs").joinpath("backbones.json").read_text(encoding="utf-8"))
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


def _card(image_size: int, crop_fraction: float, interpolation: str, mean: list[float], std: list[float]) -> Card:
    return Card(
        image_size=image_size,
        crop_fraction=crop_fraction,
        interpolation=Interpolation[interpolation.upper()],
        mean=tuple(mean),
        std=tuple(std),
    )


_PETERSEN = "Petersen, Kuehne, Borgelt, Deussen: Differentiable Top-k Classification Learning, ICML 2022"
#: The sorter's class, its name in the oneof, what it is, where it comes from.
_SORTERS: tuple[tuple[type[Any], str, str, str], ...] = (
    (
        spec.Softmax,
        "softmax",
        "Plain softmax cross-entropy over all classes: the baseline. Goes with k = {1: 1} only.",
        "",
    ),
    (spec.OddEven, "odd_even", "The odd-even transposition network: m layers of comparators.", _PETERSEN),
    (spec.Bitonic, "bitonic", "Batcher's bitonic network: about log2(m)^2 / 2 layers.", _PETERSEN),
    (
        spec.SplitterSelection,
        "splitter_selection",
        "The splitter selection network: only as much sorting as the top k needs.",
        _PETERSEN,
    ),
    (
        spec.NeuralSort,
        "neural_sort",
        "A softmax over the ranks that the pairwise differences of the scores give.",
        "Grover, Wang, Zweig, Ermon: Stochastic Optimization of Sorting Networks via Continuous Relaxations, ICLR 2019",
    ),
    (
        spec.SoftSort,
        "soft_sort",
        "A softmax over the distances of each score to the sorted scores.",
        "Prillo, Eisenschlos: SoftSort: A Continuous Relaxation for the argsort Operator, ICML 2020",
    ),
    (
        spec.Subset,
        "subset",
        "The distribution over subsets of k classes: softmax, generalised to every k.",
        "Vivier-Ardisson et al., 2026",
    ),
)
_PARAMETERS: Mapping[str, str] = {
    "steepness": "How sharply a comparator decides; above 0, at most 1000000.",
    "distribution": "How a comparator decides, as a cumulative distribution of the score difference: "
    + ", ".join(f"DISTRIBUTION_{member.name}" for member in spec.Distribution)
    + ".",
    "art_lambda": "The lambda of DISTRIBUTION_LOGISTIC_PHI; at least 0, below 1.",
    "temperature": "The softness; above 0, at most 1000000.",
}


def sorters() -> tuple[SorterCard, ...]:
    """Every sorter, in the order of the spec's oneof."""
    return tuple(
        SorterCard(name=name, summary=summary, citation=citation, parameters=_parameters(cls))
        for cls, name, summary, citation in _SORTERS
    )


def _parameters(cls: type[Any]) -> tuple[ParameterCard, ...]:
    return tuple(
        ParameterCard(name=item.name, default_json=_as_json(item.default), summary=_PARAMETERS[item.name])
        for item in dataclasses.fields(cls)
    )


def _as_json(value: Any) -> str:
    return json.dumps(f"{type(value).__name__.upper()}_{value.name}" if isinstance(value, Enum) else value)
