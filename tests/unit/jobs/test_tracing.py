"""Traces: who asks for them, and what is part of whose."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from podium.jobs.tracing import Spell, Tracer, trace_id, tracer, wanted

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def recording(sampler: Sampler = ALWAYS_ON) -> tuple[Tracer, InMemorySpanExporter]:
    provider, exporter = TracerProvider(sampler=sampler, shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracer(provider), exporter


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_asked_for_by_the_variables_of_opentelemetry(variables, asked):
    assert asked == wanted(variables)
    if not asked:
        assert tracer("podium-server", variables) is None


ABSENT = """
import logging, sys
sys.modules["opentelemetry"] = None
import podium.client._wire, podium.server.app, podium.worker.attempt
from podium.client._trace import carried
from podium.jobs.tracing import tracer
logging.basicConfig()
print(tracer("podium-server"), carried())
"""


def test_where_opentelemetry_is_not_installed_everything_works_and_who_asks_for_traces_is_told_so():
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    run = subprocess.run(
        [sys.executable, "-c", ABSENT],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "None ()" == run.stdout.strip()
    assert 'pip install "podium[otel]"' in run.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT + "\n",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        "ff" * 27,
    ],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(text):
    ours, exporter = recording()
    serving = ours.serving("podium.api.v1.JobService/GetJob", text)
    serving.end("OK")
    (span,) = exporter.get_finished_spans()

    assert "" == trace_id(text)
    assert span.parent is None
    assert trace_id(serving.trace_parent)


def test_a_call_is_a_part_of_its_callers_trace_and_what_follows_a_part_of_the_call():
    ours, exporter = recording()
    serving = ours.serving("podium.api.v1.JobService/CreateJob", PARENT)
    serving.end("OK")
    own = serving.trace_parent
    part = Spell(name="part", start=NOW, end=NOW + timedelta(seconds=1))
    ours.tell(Spell(name="whole", start=NOW, end=NOW + timedelta(seconds=3), within=(part,), facts={"n": 1}), own)
    call, inner, outer = (json.loads(one.to_json()) for one in exporter.get_finished_spans())

    assert {"a" * 32} == {trace_id(PARENT), trace_id(own), *(one["context"]["trace_id"][2:] for one in (call, inner))}
    assert ("0x" + "b" * 16, call["context"]["span_id"]) == (call["parent_id"], outer["parent_id"])
    assert outer["context"]["span_id"] == inner["parent_id"]
    assert ("whole", {"n": 1}) == (outer["name"], outer["attributes"])
    assert ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:03.000000Z") == (outer["start_time"], outer["end_time"])


@pytest.mark.parametrize(("status", "at_fault"), [("OK", False), ("NOT_FOUND", False), ("INTERNAL", True)])
def test_a_call_that_fails_by_the_servers_fault_is_an_error(status, at_fault):
    ours, exporter = recording()
    ours.serving("podium.api.v1.JobService/GetJob", "").end(status)
    (span,) = exporter.get_finished_spans()

    assert {"rpc.response.status_code": status, "rpc.method": "GetJob"}.items() <= dict(span.attributes or {}).items()
    assert at_fault == (span.status.status_code.name == "ERROR")


def test_a_call_that_is_not_sampled_is_carried_no_further():
    ours, _ = recording(ALWAYS_OFF)

    assert "" == ours.serving("podium.api.v1.JobService/CreateJob", "").trace_parent
