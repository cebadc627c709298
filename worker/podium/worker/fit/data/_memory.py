"""The memory of decoded images and of batches."""

import math
import threading
import weakref
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor
from torch import distributed as dist

_SHARE = 4
#: Of control groups, in both versions: the limit, what is used of it, and of that the files that can be dropped.
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
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


class Buffers:
    """Memory for batches on the CPU, used again when no tensor lies in it any more.

    The system hands out large blocks page by page, which takes longer than writing a batch to them.
    """

    def __init__(self) -> None:
        self._free: deque[npt.NDArray[np.float32]] = deque()

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A float32 tensor of the shape, of whatever content."""
        size = math.prod(shape)
        base = self._free.pop() if self._free else np.empty(size, dtype=np.float32)
        if base.size < size:
            base = np.empty(size, dtype=np.float32)
        array = base[:size].reshape(shape)
        # The tensor, and all that shares its memory, keep this array alive, and nothing else does.
        weakref.finalize(array, self._free.append, base).atexit = False
        return torch.from_numpy(array)


def spare_memory() -> Memory:
    """A quarter of what this machine, or its container, has left, in equal parts for the ranks of the job."""
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    return Memory(_available() // _SHARE // ranks)


def _available(groups: Path = Path("/sys/fs/cgroup")) -> int:
    available = psutil.virtual_memory().available
    for limit, used, told, droppable in _LIMITS:
        try:
            files = dict(line.split() for line in (groups / told).read_text().splitlines())
            left = int((groups / limit).read_text()) - int((groups / used).read_text()) + int(files[droppable])
        except (OSError, ValueError, KeyError):  # there is no such limit
            continue
        available = min(available, max(left, 0))
    return available
