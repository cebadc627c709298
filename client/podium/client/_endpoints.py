"""Where the local stacks of this machine listen: a folder with a file for each, named by its supervisor's process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def announce(folder: Path, target: str) -> None:
    """Says where the stack of this process listens, and forgets those that were killed."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if not _runs(file):
            file.unlink(missing_ok=True)
    own = folder / str(os.getpid())
    beside = own.with_suffix(".new")
    beside.write_text(target, encoding="utf-8")
    beside.replace(own)


def withdraw(folder: Path) -> None:
    """Takes back what this process announced."""
    (folder / str(os.getpid())).unlink(missing_ok=True)


def announced(folder: Path) -> list[str]:
    """Where the stacks that run listen, the one that came up last first."""
    found: list[tuple[int, str]] = []
    with suppress(OSError):
        for file in folder.iterdir():
            with suppress(OSError):  # it has just ended, or is somebody else's
                if _runs(file):
                    found.append((file.stat().st_mtime_ns, file.read_text(encoding="utf-8")))
    return [target for _, target in sorted(found, reverse=True)]


def _runs(file: Path) -> bool:
    try:
        os.kill(int(file.name), 0)
    except PermissionError:
        return True  # as somebody else
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    return True
