"""What a user is told of a value that breaks a rule of the contract: what it is, and what to write."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from google.protobuf import json_format

from podium.api.v1.job_service_pb2 import CreateJobRequest, ListJobsRequest, WatchJobsRequest
from podium.api.v1.metric_service_pb2 import QueryMetricsRequest
from podium.api.v1.token_pb2 import ROLE_ADMIN
from podium.api.v1.token_service_pb2 import CreateTokenRequest
from podium.server.admission._words import PATTERNS
from podium.server.admission.rules import violations

GOOD: dict[str, Any] = {
    "backbone": "resnet50",
    "full": {},
    "image_folder": {"train": "/data"},
    "soft_sort": {},
}


def told(**changes: Any) -> list[tuple[str, str]]:
    spec = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    request = json_format.ParseDict({"spec": spec}, CreateJobRequest())
    return [(violation.field.removeprefix("spec."), violation.description) for violation in violations(request)]


@pytest.mark.parametrize(
    ("changes", "field", "description"),
    [
        ({"backbone": "a b"}, "backbone", "is 'a b'; write a name of letters, digits and _ . / -, such as resnet50"),
        ({"backbone": ""}, "backbone", "is empty; write what is meant"),
        ({"backbone": "x" * 201}, "backbone", "has 201 characters; write at most 200"),
        ({"classes": ["red", "blue", "red"]}, "classes", "repeats 'red'; write each once"),
        ({"classes": [*"abcdabcd"]}, "classes", "repeats 'a', 'b', 'c' and 1 more; write each once"),
        ({"evaluation": {"top_k": [1, 5, 5]}}, "evaluation.top_k", "repeats 5; write each once"),
        (
            {"evaluation": {"monitor": "top0"}},
            "evaluation.monitor",
            "is 'top0'; write expected_accuracy, loss, or topK",
        ),
        ({"labels": {"A b": "x"}}, 'labels["A b"]', "its key is 'A b'; write lower-case letters, digits and _ . -"),
        ({"labels": {"a": "x" * 256}}, 'labels["a"]', "has 256 characters; write at most 255"),
        ({"labels": {str(n): "" for n in range(65)}}, "labels", "has 65 entries; write at most 64"),
        ({"k": {"2000": 1}}, "k[2000]", "its key is 2000; write a number of at least 1 and at most 1000"),
        ({"k": {"1": "NaN"}}, "k[1]", "is nan; write a number of at least 0 and at most 1"),
        ({"epochs": 0}, "epochs", "is 0; write a number of at least 1 and at most 100000"),
        (
            {"sgd": {"learning_rate": -1}},
            "sgd.learning_rate",
            "is -1.0; write a number greater than 0 and at most 1000",
        ),
        ({"ema_decay": 1}, "ema_decay", "is 1.0; write a number of at least 0 and less than 1"),
        ({"max_duration_seconds": 10**9}, "max_duration_seconds", "is 1000000000; write a number of at most 31536000"),
        ({"precision": 77}, "precision", "is 77, which has no name; name one of PRECISION_FP32, PRECISION_BF16"),
        ({"soft_sort": None}, "sorter", "is required; name one of softmax, odd_even, bitonic"),
        ({"weights": {}}, "weights.source", "is required; name one of package, file, checkpoint, tag"),
        (
            {"image_folder": None, "web_dataset": {"train": []}, "classes": ["a", "b"]},
            "web_dataset.train",
            "has no entries; write at least 1",
        ),
        ({"resources": {"pool": "Big"}}, "resources.pool", "is 'Big'; write lower-case letters, digits and '-'"),
    ],
)
def test_a_broken_rule_is_told_with_what_is_there_and_what_to_write(changes, field, description):
    ((where, said),) = told(**changes)

    assert field == where
    assert said.startswith(description)


@pytest.mark.parametrize(
    ("request_", "field", "description"),
    [
        (
            CreateJobRequest(spec=json_format.ParseDict(GOOD, CreateJobRequest().spec), project="a b"),
            "project",
            "is 'a b'",
        ),
        (CreateJobRequest(), "spec", "is required; write it"),
        (
            ListJobsRequest.FromString(b"\x12\x01\x4d"),
            "states[0]",
            "is 77, which has no name; name one of STATE_QUEUED",
        ),
        (ListJobsRequest(page_size=-1), "page_size", "is -1; write a number of at least 0"),
        (QueryMetricsRequest(job_id="j", first_step=2, last_step=1), "last_step", "must not be below first_step"),
        (WatchJobsRequest(), "after_sequences", "has no entries; write at least 1"),
        (CreateTokenRequest(display_name="ci"), "role", "is required; name one of "),
        (
            CreateTokenRequest(display_name="ci", role=ROLE_ADMIN, project="A"),
            "project",
            "is 'A'; write * for all projects, or ",
        ),
    ],
)
def test_so_it_is_of_other_requests(request_, field, description):
    (violation,) = violations(request_)

    assert field == violation.field
    assert violation.description.startswith(description)


def test_every_pattern_of_the_contract_has_words():
    rules = json.loads(resources.files("podium.api.v1").joinpath("rules.json").read_text())

    assert {*_patterns(rules)} == PATTERNS.keys()


def _patterns(rules: Any) -> Iterator[str]:
    for name, value in rules.items():
        if name == "pattern":
            yield value
        elif isinstance(value, dict):
            yield from _patterns(value)
