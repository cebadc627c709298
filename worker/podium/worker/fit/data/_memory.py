"""How much memory decoded images may take."""

import threading
from pathlib import Path

import psutil
from torch import distributed as dist

_SHARE = 4
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


class Memory:
    """A number of bytes that the pipelines of a process share among them.

    It changes how fast images come, never which pixels: what does not fit is decoded again.
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether so many bytes were left; then they are taken, for good."""
        with self._lock:
            fits = size <= self._left
            self._left -= size if fits else 0
            return fits


def spare_memory() -> Memory:
    """A quarter of what this machine, or its container, has left, in equal parts for the ranks of the job."""
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    return Memory(_available() // _SHARE // ranks)


def _available(groups: Path = Path("/sys/fs/cgroup")) -> int:
    available = psutil.virtual_memory().available
    for limit, used in _LIMITS:
        try:
            left = int((groups / limit).read_text()) - int((groups / used).read_text())
        except (OSError, ValueError):  # there is no such limit
            continue
        available = min(available, max(left, 0))
    return available
