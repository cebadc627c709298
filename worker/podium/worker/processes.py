"""Family matters of processes: children that do not outlive their parents, and finding those that did all the same.

A slot gets SIGTERM when its agent dies, a horse when its slot dies, also by kill -9: the attempt then saves a
checkpoint and gives its job back, which loses less than dying on the spot. One that hangs, or cannot reach the ledger,
is killed by its own alarm, or by the next agent. What it might write meanwhile is refused by the fence.
"""

import ctypes
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import psutil

from podium.jobs.job import Cause
from podium.jobs.settings import Settings

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_RANKS = ":ranks"
#: So long after its grace, in seconds, whoever ends a process by force has done so and said why, in better words than
#: those who then end it, or by which it ends itself.
FOR_THE_SUPERVISOR = 5.0


def die_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Asks the kernel for a signal when the parent dies, and leaves at once where that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit(f"the parent {parent} is gone")


def end_in(seconds: float) -> None:
    """Has the kernel end this process by then, whatever it waits for, and even where Python no longer runs.

    Only in the main thread. Asked again, the process has no more time than it had.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if not signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent dies, so that it can wait for their end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def mark(settings: Settings, node: str) -> str:
    """An argument that all processes of a node of a deployment carry, and no others; no secret is in it."""
    ledger = _without_password(settings.redis_url)
    deployment = hashlib.sha256(f"{ledger}\0{settings.artifacts}".encode()).hexdigest()[:12]
    return f"podium:{deployment}:{node}"


def _without_password(url: str) -> str:
    """Even a digest would let whoever reads `ps` try passwords out."""
    parts = urlsplit(url)
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name != "password"])
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query).geturl()


def slot_mark(node_mark: str, slot: int) -> str:
    """The same, of one slot."""
    return f"{node_mark}:{slot}"


def node_of(slot_mark: str) -> str:
    """The node of a mark that `slot_mark` made; empty: of none."""
    return slot_mark.partition(":")[2].partition(":")[2].rpartition(":")[0]


def ranks_mark(slot_mark: str) -> str:
    """The same, of torchrun and its ranks on a slot. They are killed, but never asked to end: their attempt is."""
    return f"{slot_mark}{_RANKS}"


def is_of_ranks(argument: str) -> bool:
    """Whether a mark is one of `ranks_mark`."""
    return argument.endswith(_RANKS)


def marked(matches: Callable[[str], bool]) -> list[psutil.Process]:
    """The running processes with an argument that matches, this one excepted."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        arguments: Sequence[str] = process.info["cmdline"] or ()
        if (
            process.pid != os.getpid()
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and any(map(matches, arguments))
        ):
            found.append(process)
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, and waits until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def folder_prefix(mark: str) -> str:
    """How the names of this process's temporary folders begin; see `remove_abandoned`."""
    return f"{_folders_of(mark)}{os.getpid()}-"


def remove_abandoned(mark: str) -> None:
    """Removes the temporary folders that processes of this mark left when they were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_folders_of(mark)}*"):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _folders_of(mark: str) -> str:
    # A digest, since a socket's path may have 107 characters at most, and a machine's name 253.
    return f"podium-{hashlib.sha256(mark.encode()).hexdigest()[:12]}-"


def death_of(how: str, node: str, cause: Cause) -> str:
    """The outcome of an attempt whose process died while its machine lived.

    Args:
        how: see `describe_exit`.
        node: the machine.
        cause: OOM_HOST is said too.
    """
    return f"the attempt's process {how} on {node}" + (
        ", the machine ran out of memory" if cause is Cause.OOM_HOST else ""
    )


def wait_status(code: int) -> int:
    """The wait status of an exit code; negative: a signal."""
    return -code if code < 0 else code << 8


def describe_exit(status: int) -> str:
    """A wait status in words, such as "was killed by signal 9 (SIGKILL)"."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by signal {number} ({_signal_name(number)})"
    return f"ended by itself with exit code {os.waitstatus_to_exitcode(status)}"


def _signal_name(number: int) -> str:
    # Python names the first and the last of the real-time signals alone.
    real_time = signal.SIGRTMIN < number < signal.SIGRTMAX
    return f"SIGRTMIN+{number - signal.SIGRTMIN}" if real_time else signal.Signals(number).name


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Looks ten times a second whether a condition holds; False when it still does not after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
