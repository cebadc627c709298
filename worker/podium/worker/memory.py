"""Whether the kernel killed processes here because memory ran out: a SIGKILL alone does not say who sent it."""

import os
import signal
from pathlib import Path

from podium.jobs.job import Cause


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes of this control group were killed for memory, since it exists.

    Of the whole machine where the group's count cannot be read; 0 where there is none either.

    Args:
        root: the root of the file system.
    """
    for path in (_group(root) / "memory.events", root / "proc/vmstat"):
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        if counts:
            return int(counts[0])
    return 0


class MemoryWatch:
    """Counts from when it is made.

    Args:
        root: the root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = oom_kills(root)

    def cause(self, status: int) -> Cause:
        """Why a process died that did not end by itself: OOM_HOST, or INTERNAL where nothing is known.

        Args:
            status: how it ended, a wait status.
        """
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return Cause.OOM_HOST if killed and oom_kills(self._root) > self._before else Cause.INTERNAL


def _group(root: Path) -> Path:
    """The folder of this process's control group, version 2; of the root group where it is in none."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    return root / "sys/fs/cgroup" / own
