"""What a user may write of a sorter is what podium.topk takes: names, defaults, ranges, and the catalogue of them."""

import dataclasses
import math
from collections.abc import Iterator
from enum import Enum
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, get_args

import pytest
from google.protobuf import json_format

from podium import topk
from podium.api.v1 import sorter_pb2, spec_pb2
from podium.jobs import spec
from podium.jobs.catalogue import SorterCard, sorters
from podium.jobs.wire import to_proto
from podium.server.admission.rules import violations

GENERATOR = Path(__file__).resolve().parents[3] / "jobs" / "generate_sorters.py"
FAMILIES: dict[str, type[topk.Surrogate]] = {**topk.SORTERS, **topk.BASELINES}
_FIELDS: Any = spec_pb2.JobSpec.DESCRIPTOR.oneofs_by_name["sorter"].fields
#: The names of the oneof -> the names of the messages, and so of the dataclasses and of podium.topk's classes.
MEMBERS: dict[str, str] = {field.name: field.message_type.name for field in _FIELDS}
CARDS = {card.name: card for card in sorters()}
each_family = pytest.mark.parametrize("name", FAMILIES)
each_number = pytest.mark.parametrize(
    ("name", "parameter"),
    [
        pytest.param(name, parameter, id=f"{name}.{parameter.name}")
        for name, family in FAMILIES.items()
        for parameter in topk.parameters(family)
        if not isinstance(parameter.default, Enum)
    ],
)


def in_contract(value: Any) -> Any:
    return f"{type(value).__name__.upper()}_{value.name}" if isinstance(value, Enum) else value


def test_the_oneof_names_every_family_in_the_order_of_the_registry():
    assert list(FAMILIES) == list(MEMBERS)
    assert [family.__name__ for family in FAMILIES.values()] == list(MEMBERS.values())
    assert set(get_args(spec.Sorter)) == {getattr(spec, name) for name in MEMBERS.values()}
    assert set(get_args(spec.Baseline)) == {getattr(spec, family.__name__) for family in topk.BASELINES.values()}


@each_family
def test_a_spec_has_the_parameters_of_its_family_with_the_same_defaults(name):
    in_topk = {item.name: in_contract(item.default) for item in topk.parameters(FAMILIES[name])}
    written = {field.name: field.default for field in dataclasses.fields(getattr(spec, MEMBERS[name]))}

    assert in_topk == {field: in_contract(default) for field, default in written.items()}
    # 5 and 5.0 are equal, but not the same parameter.
    assert [type(value) for value in in_topk.values()] == [type(in_contract(value)) for value in written.values()]


def test_a_comparator_decides_in_the_ways_that_the_contract_names():
    assert [law.name for law in topk.Distribution] == [law.name for law in spec.Distribution]


def probes(parameter: topk.Parameter) -> Iterator[float]:
    """Every bound with its neighbours on both sides, and numbers that no range should hold."""
    limits = [parameter.above, parameter.at_least, parameter.below, parameter.at_most]
    for limit in (limit for limit in limits if limit is not None):
        if isinstance(parameter.default, int):
            yield from (number for number in (int(limit) - 1, int(limit), int(limit) + 1) if number >= 0)
        else:
            yield from (math.nextafter(limit, -math.inf), float(limit), math.nextafter(limit, math.inf))
    yield from (1, 4_000_000_000) if isinstance(parameter.default, int) else (-1.0, 1e300, math.inf, math.nan)


def topk_takes(name: str, parameter: str, value: float) -> bool:
    try:
        FAMILIES[name](**{parameter: value})
    except ValueError:
        return False
    return True


@each_number
def test_the_contract_refuses_exactly_what_topk_refuses(name, parameter):
    values = list(probes(parameter))

    for value in values:
        found = violations(getattr(sorter_pb2, MEMBERS[name])(**{parameter.name: value}))
        blamed = set() if topk_takes(name, parameter.name, value) else {parameter.name}
        assert blamed == {violation.field for violation in found}, value
    assert {True, False} == {topk_takes(name, parameter.name, value) for value in values}


@each_family
def test_the_defaults_are_within_the_contracts_rules(name):
    assert () == violations(to_proto(getattr(spec, MEMBERS[name])()))


def test_the_committed_catalogue_is_what_the_generator_makes():
    found = spec_from_file_location("generate_sorters", GENERATOR)
    assert found is not None
    assert found.loader is not None
    generator = module_from_spec(found)
    found.loader.exec_module(generator)

    assert generator.TARGET.read_text(encoding="utf-8") == generator.document(), (
        "podium.topk's registry has changed; run: .venv/bin/python jobs/generate_sorters.py"
    )


def test_the_catalogue_tells_every_family_once_sorters_first():
    assert list(FAMILIES) == [card.name for card in sorters()]
    assert list(topk.BASELINES) == [card.name for card in sorters() if card.baseline]


@each_family
def test_a_card_says_what_its_family_says_of_itself(name):
    card, family = CARDS[name], FAMILIES[name]

    said = SorterCard(
        name=name,
        baseline=name in topk.BASELINES,
        parameters=card.parameters,
        **{field.name: getattr(family.card, field.name) for field in dataclasses.fields(topk.Card)},
    )
    assert said == card
    for item, parameter in zip(topk.parameters(family), card.parameters, strict=True):
        bounds = ("name", "summary", "above", "at_least", "below", "at_most")
        assert [getattr(item, bound) for bound in bounds] == [getattr(parameter, bound) for bound in bounds]


@pytest.mark.parametrize("card", sorters(), ids=lambda card: card.name)
def test_what_a_card_calls_the_defaults_is_what_the_contract_reads(card: SorterCard):
    defaults = {parameter.name: parameter.default for parameter in card.parameters}

    told = json_format.ParseDict(defaults, getattr(sorter_pb2, MEMBERS[card.name])())

    assert to_proto(getattr(spec, MEMBERS[card.name])()) == told


def test_a_choice_lists_the_names_of_the_contract():
    chosen = [parameter for card in sorters() for parameter in card.parameters if parameter.choices]

    assert chosen
    for parameter in chosen:
        named = [value.name for value in sorter_pb2.Distribution.DESCRIPTOR.values if value.number]
        assert list(parameter.choices) == named
        assert parameter.default in named
