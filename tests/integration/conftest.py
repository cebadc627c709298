"""A real server: a process of its own, on a free port, that can be killed and started again."""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from podium.api.v1 import (
    checkpoint_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    log_service_pb2_grpc,
    metric_service_pb2_grpc,
    node_service_pb2_grpc,
    server_service_pb2_grpc,
)
from podium.jobs.settings import Settings
from podium.jobs.store import Assignment, Leases
from podium.jobs.store.redis import RedisStore, connect


def _eventually(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until `what` holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until a condition holds: `eventually(condition, seconds)`."""
    return _eventually


METERED = ("--metrics-listen", "127.0.0.1:0")


class ServerProcess:
    """`python -m podium.server`, on the same address after every start."""

    def __init__(self, directory: Path, environment: dict[str, str], *options: str) -> None:
        self._port_file = directory / "address"
        self._log = directory / "log"
        self._environment = {**os.environ, **environment}
        self._options = options
        self.address = "127.0.0.1:0"
        self._started: subprocess.Popen[bytes] | None = None
        self._channels: list[grpc.Channel] = []

    def start(self) -> None:
        """Starts it, and returns when it serves."""
        self._port_file.unlink(missing_ok=True)
        command = [sys.executable, "-W", "error", "-m", "podium.server", "--listen", self.address]
        with self._log.open("ab") as log:
            self._started = subprocess.Popen(
                [*command, "--port-file", str(self._port_file), *self._options], env=self._environment, stderr=log
            )
        _eventually(lambda: self._port_file.exists() or self._process.poll() is not None)
        assert self._process.poll() is None, self.log()
        self.address = self._port_file.read_text().strip()

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        assert self._started is not None
        return self._started

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit status."""
        return self._process.wait(60)

    def stop(self) -> None:
        """Ends it, however it is."""
        for channel in self._channels:
            channel.close()
        if self._started is not None and self._started.poll() is None:
            self.terminate()
            self.wait()

    def log(self) -> str:
        """What it wrote to stderr."""
        return self._log.read_text()

    def scrape(self) -> Callable[..., float]:
        """Its metrics as they are now: `value = scrape()`, then `value("podium_leader")`, with labels as keywords."""
        text = self.ask("/metrics")[1]
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

        def value(name: str, **labels: str) -> float:
            return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

        return value

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body of what it answers over HTTP, where it was started with a port for that."""
        address = re.findall(r"metrics and health on http://(\S+)", self.log())[-1]
        connection = http.client.HTTPConnection(address, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def channel(self) -> grpc.Channel:
        """A new connection, closed at the end."""
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.use_local_subchannel_pool", 1)]
        self._channels.append(grpc.insecure_channel(self.address, options=options))
        return self._channels[-1]

    @property
    def jobs(self) -> job_service_pb2_grpc.JobServiceStub:
        return job_service_pb2_grpc.JobServiceStub(self.channel())

    @property
    def metrics(self) -> metric_service_pb2_grpc.MetricServiceStub:
        return metric_service_pb2_grpc.MetricServiceStub(self.channel())

    @property
    def checkpoints(self) -> checkpoint_service_pb2_grpc.CheckpointServiceStub:
        return checkpoint_service_pb2_grpc.CheckpointServiceStub(self.channel())

    @property
    def logs(self) -> log_service_pb2_grpc.LogServiceStub:
        return log_service_pb2_grpc.LogServiceStub(self.channel())

    @property
    def nodes(self) -> node_service_pb2_grpc.NodeServiceStub:
        return node_service_pb2_grpc.NodeServiceStub(self.channel())

    @property
    def catalogue(self) -> server_service_pb2_grpc.ServerServiceStub:
        return server_service_pb2_grpc.ServerServiceStub(self.channel())


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An allowed root with a dataset of 12 classes in it, train and test."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        for number in range(12):
            folder = root / split / f"class{number:02}"
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(b"never decoded by the server")
    return root


@pytest.fixture(scope="session")
def artifacts_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints lie."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def ledger_url(request: pytest.FixtureRequest, redis_url: str) -> str:
    """The URL of this test's ledger: one of its own for a test that starts its own servers.

    On the common one the lasting server leads, with its own idea of how long a lease is.
    """
    return f"{redis_url}?db=1" if "new_server" in request.fixturenames else redis_url


@pytest.fixture
def new_server(
    ledger_url: str, data_root: Path, artifacts_root: Path, tmp_path: Path
) -> Iterator[Callable[..., ServerProcess]]:
    """Makes servers on this test's ledger: `new_server(*options, **environment)`."""
    servers: list[ServerProcess] = []

    def make(*options: str, **environment: str) -> ServerProcess:
        directory = tmp_path / f"server{len(servers)}"
        directory.mkdir()
        settings = {
            "PODIUM_REDIS_URL": ledger_url,
            "PODIUM_ARTIFACTS": str(artifacts_root),
            "PODIUM_DATA_ROOTS": str(data_root),
        }
        servers.append(ServerProcess(directory, {**settings, **environment}, *options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def _lasting_server(
    _redis_process, data_root: Path, artifacts_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    environment = {
        "PODIUM_REDIS_URL": _redis_process.url,
        "PODIUM_ARTIFACTS": str(artifacts_root),
        "PODIUM_DATA_ROOTS": str(data_root),
    }
    server = ServerProcess(tmp_path_factory.mktemp("server"), environment, "--keepalive", "0.3", *METERED)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(redis_url: str, _lasting_server: ServerProcess) -> ServerProcess:
    """A server on this test's ledger, shared by the tests that leave it alive. It sends a keepalive every 0.3 s."""
    return _lasting_server


@pytest.fixture
def store(ledger_url: str) -> Iterator[RedisStore]:
    """The ledger, as an attempt would hold it."""
    settings = Settings(redis_url=ledger_url, redis_password=None, artifacts="", data_roots=(), leases=Leases())
    with connect(settings) as client:
        yield RedisStore(client)


@pytest.fixture
def request_for(data_root: Path) -> Callable[..., job_service_pb2.CreateJobRequest]:
    """Makes a request whose spec is good but for `changes`; `None` takes a field out."""

    def make(request_id: str = "", validate_only: bool = False, **changes: object) -> job_service_pb2.CreateJobRequest:
        spec: dict[str, object] = {
            "backbone": "resnet18",
            "weights": {"tag": "IMAGENET1K_V1"},
            "head": {},
            "image_folder": {"train": str(data_root / "train"), "test": str(data_root / "test")},
            "k": {"1": 0.5, "5": 0.5},
            "odd_even": {},
        }
        spec = {name: value for name, value in {**spec, **changes}.items() if value is not None}
        message = {"spec": spec, "request_id": request_id, "validate_only": validate_only}
        return json_format.ParseDict(message, job_service_pb2.CreateJobRequest())

    return make


def _exhaust(answer: Any) -> None:
    """Reads a stream to its end; an answer that is there is there."""
    if hasattr(answer, "__next__"):
        list(answer)


@pytest.fixture
def refused() -> Callable[..., SimpleNamespace]:
    """Calls, and returns the status that comes back: code, sentence, reason, metadata, violations by field."""

    def call(method: Callable[..., Any], request: Any) -> SimpleNamespace:
        with pytest.raises(grpc.RpcError) as caught:
            _exhaust(method(request, timeout=20))
        error: Any = caught.value
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(info)
            detail.Unpack(bad)
        return SimpleNamespace(
            code=caught.value.code(),
            sentence=caught.value.details(),
            reason=info.reason,
            domain=info.domain,
            metadata=dict(info.metadata),
            fields={item.field: item.description for item in bad.field_violations},
            trailing={item.key: item.value for item in caught.value.trailing_metadata()},
        )

    return call


@pytest.fixture
def running(server: ServerProcess, store: RedisStore, request_for: Callable[..., Any]) -> Callable[..., Assignment]:
    """Makes a job, and plays the attempt that runs it."""

    def begin(**changes: object) -> Assignment:
        job_id = server.jobs.CreateJob(request_for(**changes), timeout=20).job.id
        assignment = store.dispatch(job_id, "played", 0)
        store.begin(assignment)
        return assignment

    return begin
