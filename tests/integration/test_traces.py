"""One trace from a client's call to the first step on a worker, and logs that name it, by real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from podium.client import Client
from podium.jobs.spec import JobSpec
from podium.jobs.states import State
from podium.jobs.wire import from_proto


class Receiver(ThreadingHTTPServer):
    """What an OpenTelemetry collector is to those who send: OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        """With the names of the services that sent them."""
        super().__init__(("127.0.0.1", 0), _Taker)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Taker(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (one.value.string_value for one in sent.resource.attributes if one.key == "service.name")
            self.server.spans += [(service, span) for scope in sent.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *words: Any) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


@pytest.fixture
def work(ledger_url, artifacts_root, tmp_path) -> Iterator[Any]:
    """Starts a worker whose jobs are done at once; where its log is."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> Any:
        given = {"PODIUM_REDIS_URL": ledger_url, "PODIUM_ARTIFACTS": str(artifacts_root)}
        given |= {"PODIUM_TRAINER": "tests.integration.worker.drill", **environment}
        log = tmp_path / "worker.log"
        command = [sys.executable, "-m", "podium.worker", "--node", "traced", "--cpu-slots", "1"]
        with log.open("wb") as file:
            started.append(subprocess.Popen(command, env={**os.environ, **given}, stderr=file))
        return log

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_from_the_clients_call_to_the_first_step_it_is_one_trace_which_the_logs_name(
    receiver, new_server, request_for, work, eventually
):
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "PODIUM_LOG_FORMAT": "json"}
    server = new_server(**asked)
    log = work(**asked)
    span = TracerProvider(shutdown_on_exit=False).get_tracer("a user's program").start_span("study")
    spec = from_proto(JobSpec, request_for().spec)
    with Client(server.address) as client, trace.use_span(span):
        job = client.submit(spec)
    mine = span.get_span_context()

    def told() -> dict[str, Any]:
        return {one.name: (service, one) for service, one in receiver.spans if one.trace_id == id_of(mine.trace_id, 16)}

    # A batch of them may end in the midst of a job's.
    whole = {"podium.api.v1.JobService/CreateJob", "first step", "queued", "starting", "beginning"}
    eventually(lambda: whole <= told().keys())
    spans = told()
    service, call = spans["podium.api.v1.JobService/CreateJob"]
    assert ("podium-server", id_of(mine.span_id, 8)) == (service, call.parent_span_id)
    service, way = spans["first step"]
    assert ("podium-worker", call.span_id) == (service, way.parent_span_id)
    parts = [spans[name][1] for name in ("queued", "starting", "beginning")]
    assert {way.span_id} == {part.parent_span_id for part in parts}
    assert way.start_time_unix_nano == parts[0].start_time_unix_nano
    assert all(part.end_time_unix_nano <= way.end_time_unix_nano for part in parts)
    assert {"podium.job_id": job.id, "podium.node": "traced"}.items() <= {
        fact.key: fact.value.string_value for fact in way.attributes
    }.items()

    eventually(lambda: job_ended(server, job.id))
    named = [line for line in lines(server.log()) if line.get("rpc") == "JobService/CreateJob"]
    assert {f"{mine.trace_id:032x}"} == {line["trace_id"] for line in named}
    assert job.id in {line.get("job_id") for line in named}
    assert 1 == len({line["request_id"] for line in named})
    (begins,) = (line for line in lines(log.read_text()) if line.get("attempt") == 1)
    assert (job.id, f"{mine.trace_id:032x}") == (begins["job_id"], begins["trace_id"])


def job_ended(server: Any, job_id: str) -> bool:
    with Client(server.address) as client:
        return client.get(job_id).state is State.SUCCEEDED


def lines(log: str) -> list[dict[str, Any]]:
    """A log, every line of which must be an object that tells what lines tell."""
    found = [json.loads(line) for line in log.splitlines()]
    assert found
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in found)
    return found


def id_of(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big")
