"""What a client makes of a server that dies and comes back; for these tests it is a program of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.client import Client, Job, JobEvent
from podium.jobs.settings import Settings
from tests.integration.client.conftest import until


class ServerProcess:
    """`python -m podium.server`, which can be killed and started again on the same port."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._port_file = directory / "port"
        self._log = directory / "server.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.target = "127.0.0.1:0"

    def start(self) -> None:
        self._port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "podium.server", "--listen", self.target, "--port-file", str(self._port_file)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env={**os.environ, **self._environment}, stdout=log, stderr=log)
        until(lambda: self._port_file.exists() and self._port_file.read_text().strip())
        self.target = f"127.0.0.1:{self._port_file.read_text().strip().rpartition(':')[2]}"

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None


@pytest.fixture
def server(tmp_path: Path, settings: Settings) -> Iterator[ServerProcess]:
    environment = {
        "PODIUM_REDIS_URL": settings.redis_url,
        "PODIUM_ARTIFACTS": settings.artifacts,
        "PODIUM_DATA_ROOTS": ":".join(settings.data_roots),
    }
    process = ServerProcess(tmp_path, environment)
    process.start()
    yield process
    process.stop(kill=True)


def test_a_killed_server_costs_a_watch_no_event_and_doubles_none(server, client, spec, worker):
    handle = client.submit(spec)
    events: list[JobEvent] = []
    watcher = threading.Thread(target=lambda: events.extend(handle.watch()))
    watcher.start()
    assignment = worker.begin(handle.id)
    worker.step(assignment, 1)

    for step in (2, 4):
        server.stop(kill=True)
        worker.step(assignment, step)
        server.start()
        worker.step(assignment, step + 1)
    worker.finish(assignment)
    watcher.join(timeout=30)

    assert not watcher.is_alive()
    assert list(range(1, handle.job().sequence + 1)) == [event.sequence for event in events[1:]]


def test_a_killed_server_costs_a_watch_of_many_no_event_and_doubles_none(server, client, spec, worker):
    handles = [client.submit(spec) for _ in range(3)]
    events: list[JobEvent] = []
    watcher = threading.Thread(target=lambda: events.extend(client.watch(handles)))
    watcher.start()
    assignment = worker.begin(handles[0].id)
    worker.step(assignment, 1)

    server.stop(kill=True)
    worker.step(assignment, 2)
    server.start()
    with Client.connect(server.target, wait=20) as other:
        for handle in handles[1:]:
            other.job(handle.id).cancel()
    # After them: whoever is dispatched to a free slot is not cancelled at once.
    worker.finish(assignment)
    watcher.join(timeout=30)

    assert not watcher.is_alive()
    assert 3 == sum(isinstance(event.payload, Job) for event in events)
    for handle in handles:
        told = [event.sequence for event in events if event.sequence and event.job_id == handle.id]
        assert list(range(1, handle.job().sequence + 1)) == told


def test_following_outlives_a_server_that_is_killed_and_ends_with_the_job(write, server):
    found: list[str] = []
    follower = threading.Thread(target=lambda: found.extend(line.text for line in write.job.logs(follow=True)))
    write(*(f"a{at}" for at in range(5)))
    follower.start()
    until(lambda: len(found) == 5)
    server.stop(kill=True)
    write("while it was away")
    server.start()
    write("z")
    write.finish()
    follower.join(60)

    assert [*(f"a{at}" for at in range(5)), "while it was away", "z"] == found


def test_connect_waits_for_a_server_that_is_still_coming_up(server):
    server.stop()
    late = threading.Timer(0.5, server.start)
    late.start()

    with Client.connect(server.target, wait=20) as client:
        assert client.server_info().version

    late.join()
