"""The JSON Schema of a job.yaml against those who have the last word: the client's reader and the contract's rules."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import protovalidate
import pytest
import yaml
from google.protobuf import json_format

from podium.api.v1.spec_pb2 import JobSpec
from podium.client import load_spec
from podium.server.services.schema import spec_schema
from tests.unit.client.test_load_spec import MISTAKES, SPEC

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: dict[str, Any] = json.loads(spec_schema())
CHECKER = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
PLAIN = {"backbone": "resnet50", "full": {}, "image_folder": {"train": "/data"}, "soft_sort": {}}


def problems(document: Any) -> list[str]:
    # YAML has other keys than text; JSON, which the schema is about, has not.
    return [error.json_path for error in CHECKER.iter_errors(json.loads(json.dumps(document)))]


def test_it_is_a_schema_of_its_draft():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(path):
    assert [] == problems(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("change", [change for change, _, _ in MISTAKES], ids=lambda change: str(change)[:60])
def test_every_mistake_that_the_client_names_is_one_by_the_schema(change):
    # PyYAML reads 1e-3 as text, which the client puts right.
    text = SPEC.replace("1e-3", "0.001")
    assert [] == problems(yaml.safe_load(text))
    assert problems(yaml.safe_load(text.replace(*(part.replace("1e-3", "0.001") for part in change))))


@pytest.mark.parametrize(
    "changes",
    [
        {"full": None, "head": {}},
        {"full": None, "last_blocks": {}},
        {"image_folder": None, "web_dataset": {"train": ["/t.tar"]}},
        {"full": None, "head": {}, "weights": {"tag": "x"}, "augmentation": {}},
        {"sgd": {}, "adam": {}},
        {"image_folder": None},
        {"weights": {}},
    ],
    ids=str,
)
def test_what_belongs_together_or_apart_is_known(changes):
    document = {name: value for name, value in {**PLAIN, **changes}.items() if value is not None}

    assert problems(document)
    assert not allowed_by_the_contract(document, alone=False)


def placed(name: str, field: str, value: object) -> dict[str, Any]:
    """A spec with a value in one field of one of its parts, and nothing else that could be wrong."""
    if name == "JobSpec":
        return {**PLAIN, field: value}
    ref = {"$ref": f"#/$defs/{name}"}
    owner = next(key for key, shown in SCHEMA["properties"].items() if shown.get("$ref") == ref["$ref"])
    needed = {"train": "/data", "root": "/data", "name": "CIFAR10"} if name != "WebDataset" else {"train": ["/t.tar"]}
    required = {key: needed[key] for key in SCHEMA["$defs"][name].get("required", ())}
    document = {key: part for key, part in PLAIN.items() if not rivals(owner, key)}
    extra: dict[str, Any] = {"weights": {"tag": "x"}, "classes": ["a", "b"]} if owner != "weights" else {}
    return {**document, **extra, owner: {**required, field: value}}


def rivals(one: str, other: str) -> bool:
    oneofs = [{member["required"][0] for member in rule["oneOf"] if "required" in member}
              for rule in SCHEMA["allOf"] if "oneOf" in rule]  # fmt: skip
    return any({one, other} <= members for members in oneofs)


def edges() -> Iterator[tuple[str, str, object]]:
    """Of every field with a bound: what is just within it and just beyond."""
    for name, part in {"JobSpec": SCHEMA, **SCHEMA["$defs"]}.items():
        for field, shown in part.get("properties", {}).items():
            step = 1 if shown.get("type") == "integer" else 1e-7
            beyond = {"minimum": -step, "exclusiveMinimum": step, "maximum": step, "exclusiveMaximum": -step}
            for word, change in beyond.items():
                if word in shown:
                    yield from ((name, field, shown[word] + more) for more in (0, change))
            if "maxLength" in shown:
                yield from ((name, field, "a" * (shown["maxLength"] + more)) for more in (0, 1))
            if shown.get("type") == "string":
                yield from ((name, field, text) for text in ("", "a b", "top5")[: 3 if "pattern" in shown else 1])
    for ranks in ({"0": 1}, {"1": 1}, {"999": 1}, {"1000": 1}, {"1001": 1}, {"2": -0.1}, {"2": 1.1}, {}):
        yield "JobSpec", "k", ranks
    for labels in ({"A": "x"}, {"a" * 64: "x"}, {"a.b-c_d": "x" * 255}, {"a": "x" * 256}, {"a-": ""}):
        yield "JobSpec", "labels", labels
    for classes in (["a", "a"], ["a", "b"], ["x" * 201], [""]):
        yield "JobSpec", "classes", classes


def allowed_by_the_contract(document: dict[str, Any], *, alone: bool = True) -> bool:
    """Whether a spec keeps the rules; `alone`: those on one field each."""
    try:
        spec = json_format.ParseDict(document, JobSpec())
    except json_format.ParseError:
        return False
    found = [violation.proto for violation in protovalidate.collect_violations(spec)]
    return not [violation for violation in found if not (alone and violation.rule_id.startswith("job_spec."))]


def test_at_every_edge_the_schema_says_what_the_contract_says():
    tried, apart = 0, []
    for name, field, value in edges():
        document = placed(name, field, value)
        tried += 1
        if (not problems(document)) != allowed_by_the_contract(document):
            apart.append((name, field, value))

    assert [] == apart
    assert tried > 200


def test_the_defaults_are_those_that_a_spec_gets():
    spec = load_spec("backbone: resnet50\nfull: {}\nimage_folder: {train: /data}\nsoft_sort: {}\n")
    properties = SCHEMA["properties"]

    assert (spec.epochs, spec.batch_size) == tuple(properties[name]["default"] for name in ("epochs", "batch_size"))
    assert ("normal", {"1": 1.0}) == (properties["priority"]["default"], properties["k"]["default"])
    assert "expected_accuracy" == SCHEMA["$defs"]["Evaluation"]["properties"]["monitor"]["default"]


def test_an_enum_may_be_written_as_the_client_reads_it_and_as_the_contract_calls_it():
    assert [] == problems(PLAIN | {"priority": "high"})
    assert [] == problems(PLAIN | {"priority": "PRIORITY_HIGH"})
    assert problems(PLAIN | {"priority": "top"})


def test_every_field_says_what_it_is():
    parts = {"JobSpec": SCHEMA, **SCHEMA["$defs"]}

    silent = [
        f"{name}.{field}" for name, part in parts.items() for field, shown in part.get("properties", {}).items()
        if not shown.get("description")
    ]  # fmt: skip
    assert [] == silent
    assert "bf16: bfloat16" in SCHEMA["properties"]["precision"]["description"]
