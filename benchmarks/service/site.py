"""The processes of a measurement: Redis, server, echo, MLflow's tracking server. Each ends with its `with` block."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from podium.jobs.settings import Settings
from podium.jobs.store import Leases
from podium.jobs.store.redis import RedisStore, connect
from tests.conftest import RedisServer

ROOT = Path(__file__).parents[2]
#: A virtual environment of its own: see benchmarks/requirements-mlflow.txt.
_MLFLOW = ROOT / ".bench-packages" / "mlflow" / "bin"
#: Nothing that a row plays is ever lost or late.
_PATIENT = Leases(node=1e6, attempt=1e6, starting=1e6)
_STARTED = 180.0


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A server that serves, and all processes of it."""

    address: str
    """HOST:PORT, or MLflow's URL."""
    process: psutil.Process
    log: Path

    @property
    def family(self) -> list[psutil.Process]:
        """The process and those below it."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """What all of them have used so far."""
        return sum(times.user + times.system for times in (one.cpu_times() for one in self.family))

    def resident_bytes(self) -> int:
        """What all of them hold; memory that they share counts for each."""
        return sum(one.memory_info().rss for one in self.family)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A Podium without workers. Rows play what an attempt would write, by `store`."""

    folder: Path
    server: Serving
    redis: RedisServer
    store: RedisStore
    images: Path
    """Class folders, below the server's root: `train` and `test`, 12 classes of 20 files."""


@contextmanager
def podium(*options: str, **environment: str) -> Iterator[Site]:
    """A server on a Redis of its own.

    Args:
        options: of `python -m podium.server`.
        environment: on top of its settings.
    """
    with tempfile.TemporaryDirectory(prefix="podium-") as name:
        folder = Path(name)
        images = _images(folder / "data")
        redis = RedisServer(folder)
        redis.start()
        try:
            settings = Settings(redis_url=redis.url, redis_password=None, artifacts="", data_roots=(), leases=_PATIENT)
            with connect(settings) as client:
                client.config_set("appendfsync", "everysec")
                own = {
                    "PODIUM_REDIS_URL": redis.url,
                    "PODIUM_ARTIFACTS": str(folder / "artifacts"),
                    "PODIUM_DATA_ROOTS": str(images),
                    # All callers come from one address, so to the server they are one caller.
                    "PODIUM_CALLS_PER_SECOND": "0",
                    "PODIUM_STREAMS_PER_CALLER": "0",
                    **{f"PODIUM_LEASE_{lease}": "1000000" for lease in ("NODE", "ATTEMPT", "STARTING")},
                }
                command = [sys.executable, "-m", "podium.server", "--listen", "127.0.0.1:0", *options]
                with _served(command, folder / "server", {**own, **environment}) as server:
                    yield Site(
                        folder=folder,
                        server=server,
                        redis=redis,
                        store=RedisStore(client, leases=_PATIENT),
                        images=images,
                    )
        finally:
            redis.kill()


@contextmanager
def echo(*options: str) -> Iterator[Serving]:
    """What grpc.aio itself costs, and what it costs together with a question to a Redis.

    Args:
        options: of `python -m benchmarks.service.echo`.
    """
    with tempfile.TemporaryDirectory(prefix="podium-") as name:
        command = [sys.executable, "-m", "benchmarks.service.echo", *options]
        with _served(command, Path(name) / "echo", {}) as serving:
            yield serving


@contextmanager
def mlflow() -> Iterator[Serving]:
    """MLflow's tracking server with SQLite, in one process as ours.

    Raises:
        FileNotFoundError: it is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="podium-") as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        store = ("--backend-store-uri", f"sqlite:///{name}/mlflow.db", "--artifacts-destination", f"{name}/artifacts")
        command = [str(_MLFLOW / "mlflow"), "server", "--workers", "1", "--port", str(port), *store]
        # By default it has 15 connections, and with more clients all of them wait for one another.
        environment = {"PYTHONPATH": "", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "128"}
        with _process(command, Path(name) / "log", environment) as process:
            address = f"http://127.0.0.1:{port}"
            _until(lambda: _answers(f"{address}/health"), process, Path(name) / "log")
            serving = Serving(address=address, process=process, log=Path(name) / "log")
            _until(partial(_rests, serving), process, Path(name) / "log")
            yield serving


def mlflow_python() -> str:
    """The Python that has MLflow.

    Raises:
        FileNotFoundError: it is not installed.
    """
    if not (_MLFLOW / "mlflow").exists():
        raise FileNotFoundError("MLflow is not installed; run: make bench-service")
    return str(_MLFLOW / "python")


@contextmanager
def _served(command: Sequence[str], place: Path, environment: Mapping[str, str]) -> Iterator[Serving]:
    port_file, log = place.with_suffix(".port"), place.with_suffix(".log")
    with _process([*command, "--port-file", str(port_file)], log, environment) as process:
        _until(port_file.exists, process, log)
        yield Serving(address=port_file.read_text(encoding="utf-8").strip(), process=process, log=log)


@contextmanager
def _process(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    with log.open("ab") as file:
        started = subprocess.Popen(
            command, env={**os.environ, **environment}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    process = psutil.Process(started.pid)
    try:
        yield process
    finally:
        family = [*process.children(recursive=True), process] if process.is_running() else []
        started.terminate()
        psutil.wait_procs(family, timeout=20)
        for left in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        started.wait()


def _until(ready: Callable[[], bool], process: psutil.Process, log: Path) -> None:
    deadline = time.monotonic() + _STARTED
    while not ready():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
            raise RuntimeError(f"it does not serve:\n{log.read_text(encoding='utf-8')[-4000:]}")
        time.sleep(0.05)


def _rests(serving: Serving) -> bool:
    """Whether it has loaded what it loads while it serves already, which would slow down what is measured first."""
    before = serving.cpu_seconds()
    time.sleep(1.0)
    return serving.cpu_seconds() - before < 0.1


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _images(root: Path) -> Path:
    for split in ("train", "test"):
        for number in range(12):
            folder = root / split / f"class{number:02}"
            folder.mkdir(parents=True)
            for image in range(20):
                (folder / f"{image:02}.jpg").write_bytes(b"never decoded by the server")
    return root
