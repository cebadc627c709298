"""Where the command keeps what it remembers on this machine, and how it finds the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from podium.client._endpoints import announced

DEFAULT_TARGET = "127.0.0.1:50051"


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """For what may be lost: $XDG_STATE_HOME/podium, usually ~/.local/state/podium."""
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "podium"


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """For what must not be lost: $XDG_DATA_HOME/podium, usually ~/.local/share/podium."""
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "podium"


def endpoints(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the local stacks say where their servers listen: see `podium.client._endpoints`."""
    return state_dir(environ) / "endpoints"


def find_target(named: str | None) -> str:
    """The server: as named (--server or $PODIUM_SERVER), else the newest local stack's, else the default address."""
    return named or next(iter(announced(endpoints())), DEFAULT_TARGET)


class Cursors:
    """How far an interrupted `podium watch` has come, by job, so that the next one goes on there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, job_id: str) -> int:
        """The last sequence that was shown; 0 for none."""
        try:
            return int(self._file(job_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def put(self, job_id: str, sequence: int) -> None:
        """Remembers it; a home that cannot be written forgets, and the next watch begins anew."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file(job_id).write_text(str(sequence), encoding="utf-8")
        except OSError:
            return

    def forget(self, job_id: str) -> None:
        """The watch has come to its end."""
        try:
            self._file(job_id).unlink(missing_ok=True)
        except OSError:
            return

    def _file(self, job_id: str) -> Path:
        return self._folder / job_id.replace(os.sep, "_").lstrip(".")
