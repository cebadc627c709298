"""Where an attempt's processes hang: each writes the stacks of its threads into a file of its own when it gets SIGUSR1.

The handler is C and takes no lock, so it works while a library holds Python's own.
"""

import contextlib
import faulthandler
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from podium.worker.pulse import FOLDER, attempt_folder

_NAME = re.compile(r"stacks-(\d+)-(.*)")
#: How long processes have to write, in seconds.
_PATIENCE = 2.0
_TICK = 0.05


def show_on_signal(name: str) -> None:
    """Has SIGUSR1 write this process's stacks: for its supervisor, or to stderr where it has none.

    Args:
        name: what to call the process, such as "rank 1". No two of an attempt on a machine have the same.
    """
    folder = attempt_folder()
    if folder is None:
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        return
    # Open for as long as the process lives: the handler only has the number of the file.
    descriptor = os.open(folder / f"stacks-{os.getpid()}-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)


def collect(folder: Path, where: str = "") -> dict[str, str]:
    """Asks every process of an attempt on this machine for its stacks, for two seconds at most.

    Args:
        folder: shared with the processes.
        where: to be said after the name of each, such as " on n1".

    Returns:
        What each says, by its name; the first line names it, and says so where it does not answer.
    """
    found = sorted(folder.glob("stacks-*"))
    witnesses = [
        _Witness(pid=int(match[1]), name=match[2], file=file, before=file.stat().st_size)
        for file in found
        if (match := _NAME.fullmatch(file.name))
    ]
    _wait([witness for witness in witnesses if witness.ask(folder)])
    return {witness.name: witness.tell(where) for witness in witnesses}


@dataclass(frozen=True, kw_only=True)
class _Witness:
    """A process that was asked, with the file that it answers in, which may hold earlier answers."""

    pid: int
    name: str
    file: Path
    before: int

    def ask(self, folder: Path) -> bool:
        """Whether it was asked, and runs. A number that belongs to a stranger by now is left alone."""
        if self.pid == os.getpid():
            # By the handler of the signal it could die of it: that reads frames while others of our threads change them
            # (python/cpython#116008). Whoever calls from Python has all of them stand still.
            with self.file.open("ab") as file:
                faulthandler.dump_traceback(file, all_threads=True)
            return True
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if process.environ().get(FOLDER) == str(folder):
                process.send_signal(signal.SIGUSR1)
                return _state(self.pid) == "runs"
        return False

    @property
    def size(self) -> int:
        """How much it has answered, in bytes."""
        return self.file.stat().st_size - self.before

    def tell(self, where: str) -> str:
        """What it has answered, or why it has not."""
        text = self.file.read_bytes()[self.before :].decode(errors="replace").strip()
        name = f"{self.name}{where} (process {self.pid})"
        if not text:
            return f"{name} {_state(self.pid)}, and does not say where it is"
        # The main thread comes last, and is what is looked for.
        threads = sorted(text.split("\n\n"), key=lambda thread: not thread.startswith("Current"))
        return "\n\n".join([f"{name}:\n{threads[0]}", *threads[1:]])


def _wait(witnesses: Sequence[_Witness]) -> None:
    """Until all of them have answered, and are not answering any more."""
    end, sizes = time.monotonic() + _PATIENCE, [0] * len(witnesses)
    while time.monotonic() < end:
        time.sleep(_TICK)
        before, sizes = sizes, [witness.size for witness in witnesses]
        if all(sizes) and sizes == before:
            return


def _state(pid: int) -> str:
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "is gone"
    if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        return "is stopped by a signal"
    return "is gone" if status == psutil.STATUS_ZOMBIE else "runs"
