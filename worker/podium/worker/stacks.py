"""Where an attempt's processes hang: each writes the stacks of its threads into a file of its own when it is asked.

It is asked by SIGUSR1, whose handler only wakes a thread of Python's. That thread has Python's lock, so all others
stand still while it reads where they are. A handler that read while they run could read what is just being freed, and
the process would die of it (python/cpython#116008).

Where a library holds Python's lock for good the thread never answers. Then SIGUSR2 is sent, whose handler is C and
takes no lock: nobody changes a frame while the library has it.
"""

import contextlib
import faulthandler
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from podium.worker.pulse import FOLDER, attempt_folder

_NAME = re.compile(r"stacks-(\d+)-(.*)")
#: How long processes have to write, in seconds: each time that they are asked.
_PATIENCE = 1.0
_TICK = 0.05


def show_on_signal(name: str) -> None:
    """Has this process write its stacks when it is asked: for its supervisor, or to stderr where it has none.

    To be called once, by the main thread.

    Args:
        name: what to call the process, such as "rank 1". No two of an attempt on a machine have the same.
    """
    folder = attempt_folder()
    # Open for as long as the process lives: the handler only has the number of the file.
    descriptor = (
        sys.stderr.fileno()
        if folder is None
        else os.open(folder / f"stacks-{os.getpid()}-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    )
    faulthandler.register(signal.SIGUSR2, file=descriptor, all_threads=True)
    asked, wake = os.pipe()
    os.set_blocking(wake, False)
    # Written to at once, by whichever thread the signal comes to, while the handler itself waits for the main thread.
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    # No call of a library is to end early because of it.
    signal.siginterrupt(signal.SIGUSR1, False)
    threading.Thread(target=_answer, args=(asked, descriptor), name="stacks", daemon=True).start()


def _answer(asked: int, descriptor: int) -> None:
    # The wake-up tells of every signal that Python handles.
    while numbers := os.read(asked, 1):
        if numbers[0] == signal.SIGUSR1:
            faulthandler.dump_traceback(descriptor, all_threads=True)


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
    asked = [witness for witness in witnesses if witness.ask(folder)]
    _wait(asked)
    _wait([witness for witness in asked if not witness.size and witness.signalled(signal.SIGUSR2, folder)])
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
            with self.file.open("ab") as file:
                faulthandler.dump_traceback(file, all_threads=True)
            return True
        return self.signalled(signal.SIGUSR1, folder)

    def signalled(self, number: signal.Signals, folder: Path) -> bool:
        """As `ask`, by one of the two signals."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if process.environ().get(FOLDER) == str(folder):
                process.send_signal(number)
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
        *others, main = text.split("\n\n")
        return "\n\n".join([f"{name}:\n{main}", *others])


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
