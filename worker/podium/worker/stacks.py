"""Where an attempt's processes hang: each writes the stacks of its threads into a file of its own when it gets SIGUSR1.

The handler is C and takes no lock, so it works while a library holds Python's own.
"""

import contextlib
import faulthandler
import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from podium.jobs.events import Level, LogLine
from podium.worker.pulse import FOLDER, attempt_folder

_NAME = re.compile(r"stacks-(\d+)-(.*)")
#: How long processes have to write, in seconds.
_PATIENCE = 2.0
_TICK = 0.05
#: At most so many lines of each process, and of all together, each of so many characters.
_LINES, _ALL_LINES, _CHARACTERS = 300, 2000, 300


def show_on_signal(name: str) -> None:
    """Has SIGUSR1 write this process's stacks: for its supervisor, or to stderr where it has none.

    Args:
        name: what to call the process, such as "rank 1".
    """
    folder = attempt_folder()
    if folder is None:
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        return
    # Open for as long as the process lives: the handler only has the number of the file.
    descriptor = os.open(folder / f"stacks-{os.getpid()}-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)


def collect(folder: Path) -> list[LogLine]:
    """Asks every process of an attempt for its stacks; returns them as lines of its log, the process named above each.

    Args:
        folder: shared with the processes.
    """
    files = sorted(folder.glob("stacks-*"))
    named = [(int(found[1]), found[2], file) for file in files if (found := _NAME.fullmatch(file.name))]
    _wait([file for pid, _, file in named if _asked(pid, folder)])
    now = datetime.now(UTC)
    return [
        LogLine(text=line, level=Level.ERROR, time=now, rank=_rank(name))
        for pid, name, file in named
        for line in _told(pid, name, file)
    ][:_ALL_LINES]


def _rank(name: str) -> int:
    """The rank that a process was named after; 0 where it is none."""
    number = name.removeprefix("rank ")
    return int(number) if number != name and number.isdecimal() else 0


def _asked(pid: int, folder: Path) -> bool:
    """Whether a process was asked, and runs. A number that belongs to a stranger by now is left alone."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.environ().get(FOLDER) == str(folder):
            process.send_signal(signal.SIGUSR1)
            return _state(pid) == "runs"
    return False


def _wait(files: list[Path]) -> None:
    """Until all of them have been written, and are not being written any more."""
    end, sizes = time.monotonic() + _PATIENCE, [0] * len(files)
    while time.monotonic() < end:
        time.sleep(_TICK)
        before, sizes = sizes, [file.stat().st_size for file in files]
        if all(sizes) and sizes == before:
            return


def _told(pid: int, name: str, file: Path) -> Iterator[str]:
    lines = file.read_bytes().decode(errors="replace").splitlines()
    if lines:
        yield f"{name} (process {pid}):"
    else:
        yield f"{name} (process {pid}) {_state(pid)}, and does not say where it is"
    for line in lines[:_LINES]:
        yield line[:_CHARACTERS]


def _state(pid: int) -> str:
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "is gone"
    if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        return "is stopped by a signal"
    return "is gone" if status == psutil.STATUS_ZOMBIE else "runs"
