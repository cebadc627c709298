"""The server's first look at a message against protovalidate, which has the last word."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import protovalidate
import pytest
from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message

from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.client import load_spec
from podium.jobs import wire
from podium.server.admission import _keeping
from podium.server.admission._keeping import keeps
from podium.server.admission.rules import violations
from tests.hostile.messages import Writer

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
RULES: Mapping[str, Any] = json.loads(resources.files("podium.api.v1").joinpath("rules.json").read_text())
KINDS = [
    message_factory.GetMessageClass(kind)
    for path in sorted((ROOT / "proto/podium/api/v1").glob("*.proto"))
    for kind in import_module(f"podium.api.v1.{path.stem}_pb2").DESCRIPTOR.message_types_by_name.values()
    if kind.full_name in RULES
]
UUID = "0d6a2a1e-5a0b-4c39-9d2f-1f1b4e1c2a3b"
WORDS = ("", "a", "A-b", "a.b", "a/b", "-a", "a-", "1", "ä", "a\n", UUID, f"{UUID}\n", UUID.replace("-", ""))


def next_to_the_limits() -> Mapping[str, list[Any]]:
    """Name of a field, or of a map -> values at and beside every limit that a field of that name has somewhere."""
    found: dict[str, list[Any]] = defaultdict(list)
    for rules in RULES.values():
        for name, field in rules.get("fields", {}).items():
            own = field.get("map", {}).get("keys") or field.get("repeated", {}).get("items") or field
            found[name] += [value for kind, of in own.items() if kind != "cel" for value in values_of(kind, of)]
    return {name: values for name, values in found.items() if values}


def values_of(kind: str, rules: Any) -> Iterator[Any]:
    match kind:
        case "string":
            yield from WORDS
            yield from (
                "a" * (int(length) + more) for name, length in rules.items() if "len" in name for more in (0, 1)
            )
        case "double":
            yield from (limit for name, limit in rules.items() if name != "finite")
            yield from (0.0, 0.1, 0.5, 1.5, -1.0, math.inf, -math.inf, math.nan)
        case "uint32" | "uint64" | "int32" | "int64":
            yield from (max(int(limit) + more, 0) for limit in rules.values() for more in (-1, 0, 1))


def good(message: Message) -> bool:
    return not protovalidate.collect_violations(message)


def written(kind: type[Message], seed: int) -> Iterator[Message]:
    """Messages of a kind, good and bad."""
    writer = Writer(seed, next_to_the_limits(), wire.to_proto(load_spec(EXAMPLES[seed % len(EXAMPLES)])))
    for _ in range(60 if "spec" in kind.DESCRIPTOR.fields_by_name else 12):
        message = kind()
        try:
            message.ParseFromString(writer.request(kind))
        except DecodeError:
            continue
        yield message


@pytest.mark.parametrize("seed", range(2))
def test_the_first_look_and_protovalidate_agree_on_every_message_of_the_contract(seed):
    seen: Counter[bool] = Counter()
    for kind in KINDS:
        for message in written(kind, seed):
            seen[good(message)] += 1
            assert keeps(message) == good(message), message

    assert min(seen[True], seen[False]) > 100


def test_what_breaks_a_rule_is_told_in_words_whatever_the_message_is():
    told = [violation for kind in KINDS for message in written(kind, 0) for violation in violations(message)]

    assert len(told) > 100
    # protovalidate's own.
    assert not [one for one in told if re.search("regex|repeated value|oneof|value must|value is required", str(one))]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_whoever_submits_an_example_does_not_wait_for_protovalidate(file, monkeypatch):
    asked: list[Message] = []

    def collect(message: Message) -> list[Any]:
        asked.append(message)
        return []

    monkeypatch.setattr("podium.server.admission.rules._collect", collect)

    violations(CreateJobRequest(spec=wire.to_proto(load_spec(file)), request_id=UUID, project="vision"))
    assert not asked
    violations(CreateJobRequest(project="no project"))
    assert len(asked) == 1


@pytest.mark.parametrize(
    "rules",
    [
        {"fields": {"backbone": {"string": {"prefix": "res"}}}},
        {"fields": {"backbone": {"cel": [{"expression": "this.size() < 9"}]}}},
        {"fields": {"classes": {"repeated": {"min_items": "0", "in": ["a"]}}}},
        {"fields": {"classes": {"cel": [{"expression": "this.size() < 9"}]}}},
        {"fields": {"classes": {"repeated": {"items": {"required": True}}}}},
        {"fields": {"k": {"map": {"max_pairs": "9", "no_sparse": True}}}},
        {"fields": {"seed": {"uint64": {"const": "1"}}}},
        {"fields": {"compile": {"bool": {"const": True}}}},
        {"fields": {"priority": {"enum": {"in": [1]}}}},
        {"cel": ["this.seed > 1"]},
    ],
    ids=str,
)
def test_of_a_rule_that_it_does_not_know_it_says_no(rules):
    spec = wire.to_proto(load_spec(EXAMPLES[0]))
    spec.classes.append("cat")
    spec.seed = 1
    spec.compile = True
    assert _keeping._Keeper(spec.DESCRIPTOR, {}).keeps(spec)

    assert not _keeping._Keeper(spec.DESCRIPTOR, rules).keeps(spec)


def test_every_expression_of_the_contract_is_known_to_it():
    told = {expression for rules in RULES.values() for expression in rules.get("cel", ())}
    told |= {
        rule["expression"]
        for rules in RULES.values()
        for field in rules.get("fields", {}).values()
        for rule in field.get("cel", ())
    }

    assert told == set(_keeping._IN_PYTHON)
