"""The clients of the service's benchmark, against a real gRPC server."""

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from benchmarks.service import load
from benchmarks.service.site import ROOT, Serving
from podium.api.v1.job_service_pb2 import CreateJobRequest

_ID = CreateJobRequest.REQUEST_ID_FIELD_NUMBER
_REQUEST = CreateJobRequest(project="vision").SerializeToString()


@dataclass
class _Desk:
    """Answers each call with so many bytes, and refuses all after so many calls."""

    address: str = ""
    answer_bytes: int = 0
    refuses_after: int = 1 << 30
    requests: list[CreateJobRequest] = field(default_factory=list)

    def create(self, request: CreateJobRequest, context: Any) -> bytes:
        self.requests.append(request)
        if len(self.requests) > self.refuses_after:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the line is full")
        return bytes(self.answer_bytes)


@pytest.fixture
def desk() -> Iterator[_Desk]:
    desk, server = _Desk(), grpc.server(ThreadPoolExecutor(4))
    handler: grpc.RpcMethodHandler[CreateJobRequest, bytes] = grpc.unary_unary_rpc_method_handler(
        desk.create, request_deserializer=CreateJobRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Desk", {"Create": handler}),))
    desk.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield desk
    server.stop(None).wait()


def _clients(address: str, method: str = "/Desk/Create", *, clients: int, seconds: float) -> tuple[str, str]:
    """What the program says, and what it complains of."""
    words = [address, method, _REQUEST.hex(), str(clients), str(seconds), str(_ID)]
    command = [sys.executable, "-m", "benchmarks.service.clients", *words]
    done = subprocess.run(command, cwd=ROOT, input="go\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == (not done.stderr)
    return done.stdout, done.stderr


def test_every_call_is_a_request_of_its_own_and_all_but_each_clients_first_are_measured(desk: _Desk):
    told, _ = _clients(desk.address, clients=3, seconds=0.2)

    times = json.loads(told.removeprefix("ready\n"))["times"]
    assert len(times) == len(desk.requests) - 3 > 3
    assert 0 < min(times) <= max(times) < 60
    assert {request.project for request in desk.requests} == {"vision"}
    assert len({uuid.UUID(request.request_id) for request in desk.requests}) == len(desk.requests)


def test_answers_may_be_larger_than_a_frame_and_all_together_than_any_window(desk: _Desk):
    desk.answer_bytes = 20 << 20

    told, _ = _clients(desk.address, clients=1, seconds=0.0)

    assert len(json.loads(told.removeprefix("ready\n"))["times"]) == len(desk.requests) - 1 == 1


def test_clients_answer_a_ping_and_end_where_the_server_goes_away():
    words, ping = b"too many pings", b"\0\0\x08\x06%c\0\0\0\0whodares"
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        done = pool.submit(_clients, f"127.0.0.1:{server.getsockname()[1]}", clients=1, seconds=30.0)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(20)
            connection.sendall(ping % 0)
            received = b""
            while ping % 1 not in received:
                received += connection.recv(1 << 16)
            connection.sendall(b"\0\0%c\x07\0\0\0\0\0" % (8 + len(words)) + bytes(8) + words)
            told, complaint = done.result()

    assert told == ""
    assert "GOAWAY" in complaint
    assert words.decode() in complaint


def test_a_refusal_ends_the_clients_with_the_servers_words(desk: _Desk):
    desk.refuses_after = 10

    told, complaint = _clients(desk.address, clients=2, seconds=30.0)

    assert told == "ready\n"
    assert "the line is full" in complaint


def test_clients_that_are_not_served_do_not_begin(desk: _Desk):
    told, complaint = _clients(desk.address, "/Desk/Paint", clients=1, seconds=30.0)

    assert told == ""
    assert "Method not found" in complaint


def _serving(desk: _Desk) -> Serving:
    return Serving(address=desk.address, process=psutil.Process(), log=Path())


def test_a_load_adds_up_what_its_clients_have_measured(desk: _Desk):
    made = load.put(_serving(desk), "/Desk/Create", _REQUEST, clients=4, seconds=0.3, request_id_field=_ID)

    assert made.calls == len(desk.requests) - 4
    assert len({request.request_id for request in desk.requests}) == len(desk.requests)
    assert 0 < made.p50 <= made.p99 < 60
    assert 0 < made.clients_cpu < made.cpu


def test_a_load_with_a_refused_call_is_no_measurement(desk: _Desk):
    desk.refuses_after = 10

    with pytest.raises(RuntimeError, match="said why"):
        load.put(_serving(desk), "/Desk/Create", _REQUEST, clients=1, seconds=30.0)
