"""Several server processes on one port: the kernel deals connections out among them (SO_REUSEPORT).

This process serves nothing and holds no gRPC, which must never be forked: it reserves the port, starts the others as
programs of their own, and starts those again that die. They end with it: each has a pipe from it as its standard
input, which closes whatever becomes of this process. Which of them leads is decided as among replicas: by a lock.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LOG = logging.getLogger(__name__)
#: Seconds before a process that died is started again.
_AGAIN_AFTER = 1.0
_LOOK_EVERY = 0.05
#: Seconds that they have to stop in good order, which take less; fewer than docker-compose.yml gives this process.
_PATIENCE = 25.0


class Siblings:
    """Server processes that share a port.

    Args:
        count: how many.
        listen: HOST:PORT; port 0 takes a free one.
        options: of `python -m podium.server`, the same for all.
        port_file: gets the address once all of them serve.
        metrics_listen: HOST:PORT of the first one's metrics; the next one's have the next port. None: nowhere.
        patience: seconds after which one that was asked to stop is killed.
    """

    def __init__(
        self,
        count: int,
        *,
        listen: str,
        options: Sequence[str],
        port_file: Path | None,
        metrics_listen: str | None,
        patience: float = _PATIENCE,
    ) -> None:
        self._count = count
        self._listen = listen
        self._options = options
        self._port_file = port_file
        self._metrics_listen = metrics_listen
        self._patience = patience
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT. Returns 0, or the exit status of a process that could not begin to serve.

        Raises:
            OSError: the address cannot be shared, or bound.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        reserved, address = _reserved(self._listen)
        with reserved, tempfile.TemporaryDirectory(prefix="podium-") as folder:
            # The first one alone, so that what is wrong with the settings is said once.
            keepers = [asyncio.create_task(self._keep(0, address, Path(folder)))]
            await self._served(Path(folder), 1)
            for place in range(1, self._count):
                keepers.append(asyncio.create_task(self._keep(place, address, Path(folder))))
            await self._served(Path(folder), self._count)
            if not self._stopping.is_set():
                _LOG.info("serving on %s by %d processes", address, self._count)
                if self._port_file is not None:
                    publish(self._port_file, address)
            await self._stopping.wait()
            for process in self._running.values():
                _terminate(process)
            await asyncio.wait(keepers, timeout=self._patience)
            for process in self._running.values():
                _LOG.error("server process %d does not stop and is killed", process.pid)
                process.kill()
            await asyncio.gather(*keepers)
        return self._status

    async def _served(self, folder: Path, count: int) -> None:
        """Waits until so many of them have served, or the end is near."""
        while not self._stopping.is_set() and not all(_port_file(folder, place).exists() for place in range(count)):
            await asyncio.sleep(_LOOK_EVERY)

    async def _keep(self, place: int, address: str, folder: Path) -> None:
        """Has one of them run until all are to stop."""
        command = [sys.executable, "-m", "podium.server", "--sibling", "--listen", address, *self._options]
        command += ["--port-file", str(_port_file(folder, place)), *self._metrics(place)]
        while not self._stopping.is_set():
            process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
            self._running[place] = process
            if self._stopping.is_set():
                _terminate(process)
            status = await process.wait()
            del self._running[place]
            if self._stopping.is_set():
                return
            if not _port_file(folder, place).exists():
                self._status = status or 1
                self._stopping.set()
                return
            _LOG.error("server process %d ended with %d and is started again", process.pid, status)
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_AFTER):
                    await self._stopping.wait()

    def _metrics(self, place: int) -> Sequence[str]:
        if self._metrics_listen is None:
            return ()
        host, _, port = self._metrics_listen.rpartition(":")
        return (
            "--metrics-listen",
            f"{host}:{int(port) + place}" if port.isdecimal() and int(port) else f"{host}:{port}",
        )


def publish(path: Path, address: str) -> None:
    """Writes an address where others wait for it: the whole of it, or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(f"{address}\n", encoding="utf-8")
    beside.replace(path)


def _terminate(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


def _port_file(folder: Path, place: int) -> Path:
    return folder / str(place)


def _reserved(listen: str) -> tuple[socket.socket, str]:
    """A socket that has the port, so that only processes of this user can listen there, and the whole address."""
    host, _, port = listen.rpartition(":")
    if listen.startswith("unix:") or not port.isdecimal():
        raise OSError(f"several processes cannot share {listen}; write HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        if int(port):
            # With SO_REUSEPORT we would join whoever has the port already, and share its callers unnoticed.
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
        # It is bound and does not listen, so it is dealt no connections.
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(where)
    except OSError as error:
        raise OSError(f"cannot listen on {listen}; choose a free port with --listen") from error
    return reserved, f"{host}:{reserved.getsockname()[1]}"
