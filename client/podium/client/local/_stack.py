"""The local stack: Redis, a server and a worker, started in order, kept alive, stopped in reverse."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from podium.client._endpoints import announce, announced, withdraw
from podium.client.local._child import Child, Program
from podium.client.local._redis import RedisFiles, find_binary
from podium.jobs.errors import PodiumError

_START_SECONDS = 60.0
_TICK_SECONDS = 0.2
_STEADY_SECONDS = 60.0
_MAX_PAUSE_SECONDS = 30.0
_LEFTOVER_SECONDS = 150.0
#: What tells whether the server's and the worker's packages are there.
_NEEDED = ("redis", "rq", "protovalidate", "torch", "torchvision", "timm")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class LocalStackError(PodiumError):
    """The local stack cannot be brought up; the sentence says what to do."""

    default_reason: ClassVar[str] = "LOCAL_STACK"


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What to bring up."""

    directory: Path
    """Everything that is kept: Redis's data, checkpoints, logs."""
    listen: str = "127.0.0.1:50051"
    slots: int = 0
    """CPU slots; 0: one per GPU, or one CPU slot where there is no GPU."""
    data_roots: tuple[Path, ...] = ()
    """Where paths in specs may point to."""
    endpoints: Path | None = None
    """Where to tell other programs the server's address: see `podium.client._endpoints`."""


@dataclass(kw_only=True)
class _Kept:
    """A child, and when it may be started again after it died."""

    program: Program
    child: Child
    started: float
    pause: float = 0.5
    retry_at: float | None = None


@dataclass
class Stack:
    """Redis, a server and a worker on this machine. `start`, then `tick` often, then `stop`.

    Children are told to stop when the thread that started them ends, so call everything from one long-lived thread.
    """

    config: StackConfig
    say: Callable[[str], None]
    """Told what a person would like to know: that a child died, that it was started again."""
    hurry: Callable[[], bool] = lambda: False
    """Whether to kill what does not stop at once."""
    target: str = ""
    """The server's address, once started."""
    _kept: list[_Kept] = field(default_factory=list)
    _lock: int | None = None
    _pipe: tuple[int, int] | None = None

    def start(self) -> None:
        """Brings everything up and waits until the server answers.

        Raises:
            LocalStackError: another stack holds the directory, there is no Redis, a package is missing, or a child did
                not come up.
        """
        if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
            raise LocalStackError(f'a local stack needs {", ".join(missing)}; pip install "podium[local]"')
        binary = find_binary()
        if binary is None:
            raise LocalStackError(
                "no redis-server was found; install Redis (apt install redis-server, brew install redis), "
                'or on Python 3.11 and 3.12: pip install "podium[local]"'
            )
        for name in ("logs", "artifacts"):
            (self.config.directory / name).mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.config.directory, self.say)
        self._pipe = os.pipe()
        try:
            self._start_all(binary)
        except BaseException:
            self.stop()
            raise

    def _start_all(self, binary: str) -> None:
        redis = RedisFiles(self.config.directory / "redis")
        environment = self._environment(redis)
        self._keep(self._redis(binary, redis), redis.answers)
        port_file = self.config.directory / "server.port"
        port_file.unlink(missing_ok=True)
        host = _host(self.config.listen)
        self._keep(self._server(environment, self.config.listen, port_file), lambda: _listens(host, port_file))
        self.target = f"{host}:{_port(port_file)}"
        # After a crash it must come back to where its clients know it.
        again = f"{self.config.listen.rpartition(':')[0]}:{_port(port_file)}"
        self._kept[-1].program = self._server(environment, again, port_file)
        self._keep(self._worker(environment), lambda: True)
        if self.config.endpoints is not None:
            for other in announced(self.config.endpoints):
                self.say(f"Another podium is up at {other}; until this one stops, write --server {other} to reach it.")
            announce(self.config.endpoints, self.target)

    def tick(self) -> None:
        """Looks after the children once: one that died is started again, later each time."""
        for kept in self._kept:
            now = time.monotonic()
            if kept.retry_at is None:
                how = kept.child.ended()
                if how is not None:
                    self._plan_restart(kept, how, now)
            elif now >= kept.retry_at:
                kept.child, kept.started, kept.retry_at = Child(kept.program), now, None

    def run(self, stopped: Callable[[], bool]) -> None:
        """Ticks until `stopped`."""
        while not stopped():
            self.tick()
            time.sleep(_TICK_SECONDS)

    def stop(self) -> None:
        """Stops the worker (its job writes a checkpoint and goes back to the queue), the server, then Redis."""
        while self._kept:
            child = self._kept.pop().child
            # Redis comes last, stops within moments, and is never killed: it would lose its last second.
            child.stop(self.hurry) if self._kept else child.stop()
        if self.config.endpoints is not None:
            withdraw(self.config.endpoints)
        for descriptor in (*(self._pipe or ()), *(() if self._lock is None else (self._lock,))):
            os.close(descriptor)
        self._pipe = self._lock = None

    def _plan_restart(self, kept: _Kept, how: str, now: float) -> None:
        if now - kept.started > _STEADY_SECONDS:
            kept.pause = 0.5
        kept.retry_at = now + kept.pause
        name, log = kept.program.name, kept.program.log
        self.say(f"The {name} has ended ({how}); it starts again in {kept.pause:g} s. Its log: {log}")
        kept.pause = min(2 * kept.pause, _MAX_PAUSE_SECONDS)

    def _keep(self, program: Program, ready: Callable[[], bool]) -> None:
        child = Child(program)
        self._kept.append(_Kept(program=program, child=child, started=time.monotonic()))
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            how = child.ended()
            if how is not None or time.monotonic() > deadline:
                what = f"ended at once ({how})" if how else f"did not come up within {_START_SECONDS:.0f} s"
                raise LocalStackError(f"the {program.name} {what}; its log {program.log} says:\n{child.last_words()}")
            time.sleep(0.05)

    def _environment(self, redis: RedisFiles) -> dict[str, str]:
        return {
            "PODIUM_REDIS_URL": redis.url,
            "PODIUM_REDIS_PASSWORD_FILE": str(redis.password_file),
            "PODIUM_ARTIFACTS": str(self.config.directory / "artifacts"),
            "PODIUM_DATA_ROOTS": ":".join(str(root) for root in self.config.data_roots),
            # PyTorch's threads would spin while they wait, which on a machine that does something else costs more
            # than half of the speed (measured: 26 against 93 images/s).
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        }

    def _redis(self, binary: str, redis: RedisFiles) -> Program:
        # Should we be killed, it stays until the worker has written down what it has.
        program = self._program("redis", (binary, str(redis.config)))
        return replace(program, outlives=self._pipe[0] if self._pipe else None)

    def _server(self, environment: dict[str, str], listen: str, port_file: Path) -> Program:
        command = (sys.executable, "-m", "podium.server", "--listen", listen, "--port-file", str(port_file))
        return self._program("server", command, environment)

    def _worker(self, environment: dict[str, str]) -> Program:
        slots = ("--cpu-slots", str(self.config.slots)) if self.config.slots else ()
        # The worker gives its attempts two minutes to save their work.
        program = self._program("worker", (sys.executable, "-m", "podium.worker", *slots), environment, grace=150.0)
        return replace(program, inherited=(*program.inherited, *(self._pipe or ())[1:]))

    def _program(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] = _NOTHING, grace: float = 15.0
    ) -> Program:
        return Program(
            name=name,
            command=command,
            log=self.config.directory / "logs" / f"{name}.log",
            environment=environment,
            grace=grace,
            # Should we be killed, nobody else takes over the directory before all of them have ended.
            inherited=() if self._lock is None else (self._lock,),
        )


def _lock(directory: Path, say: Callable[[str], None]) -> int:
    """An open file that nobody else may lock. What a stack that was killed left running is waited for.

    Raises:
        LocalStackError: another stack lives there.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline, told = time.monotonic() + _LEFTOVER_SECONDS, False
    while not _try_lock(descriptor):
        if _alive(os.pread(descriptor, 20, 0)) or time.monotonic() > deadline:
            os.close(descriptor)
            raise LocalStackError(f"another podium runs on {directory}; use it, stop it, or name another --data-dir")
        if not told:
            say(f"Waiting for the rest of an earlier podium on {directory} to end ...")
        told = True
        time.sleep(0.1)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: bytes) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


def _listens(host: str, port_file: Path) -> bool:
    try:
        with socket.create_connection((host.strip("[]"), _port(port_file)), timeout=1.0):
            return True
    except (OSError, ValueError):
        return False


def _port(port_file: Path) -> int:
    return int(port_file.read_text(encoding="utf-8").strip().rpartition(":")[2])


def _host(listen: str) -> str:
    host = listen.rpartition(":")[0]
    return host if host not in ("", "0.0.0.0", "[::]") else "127.0.0.1"
