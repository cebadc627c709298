"""Whether a slot's device has room for a job, before one is taken: it would fail for memory that strangers hold."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from podium.jobs.job import Slot
from podium.worker.inventory import gpu_memory
from podium.worker.noticeboard import Noticeboard

_LOG = logging.getLogger(__name__)
#: How much of a GPU's memory must be free where nothing of ours runs. Drivers keep a little for themselves.
_FREE = 0.9
#: How much memory a CPU slot needs to begin, in bytes.
_HOST_MEMORY = 1 << 30
_INTERVAL = 5.0
#: After so many seconds without an answer from nvidia-smi its GPUs are not trusted.
_SILENCE = 60.0

#: See `inventory.gpu_memory`.
Memory = Mapping[str, tuple[int, int]] | None


def trouble_of(slot: Slot, memory: Memory, available: int) -> str:
    """Why an idle slot can take no job, in words; empty: it can.

    Args:
        slot: the slot.
        memory: of the machine's GPUs.
        available: the host's memory, in bytes.
    """
    if slot.device == "cpu":
        if available >= _HOST_MEMORY:
            return ""
        return f"{available / 2**30:.1f} GiB of memory are available; a job needs {_HOST_MEMORY / 2**30:.0f} to begin"
    if memory is None:
        return "nvidia-smi does not answer"
    if slot.device not in memory:
        return f"nvidia-smi no longer lists {slot.device}"
    free, total = memory[slot.device]
    if free >= _FREE * total:
        return ""
    return f"{(total - free) / 1024:.1f} of {total / 1024:.1f} GiB are held by others on {slot.device}"


class MemoryCheck:
    """A thread that looks at idle slots, as nvidia-smi may take long, or for ever where a GPU has failed.

    What is seen once may be what an attempt that has just ended leaves for a moment; it counts when it is seen twice.

    Args:
        slots: the machine's.
        board: says which are idle, and is told of troubles.
        gpus: asks for the GPUs' memory.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        board: Noticeboard,
        *,
        gpus: Callable[[], Memory] = gpu_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._board = board
        self._gpus = gpus if any(slot.device != "cpu" for slot in slots) else lambda: {}
        self._clock = clock
        self._looked = clock()
        self._suspected: dict[int, str] = {}
        self._troubles: dict[int, str] = {}

    def start(self) -> None:
        """Looks every few seconds, for as long as the process lives."""
        threading.Thread(target=self._run, name="memory_check", daemon=True).start()

    def troubles(self) -> Mapping[int, str]:
        """The slots that can take no job, and why."""
        if self._clock() - self._looked < _SILENCE:
            return self._troubles
        busy = self._board.occupied()
        idle = [slot.index for slot in self._slots if slot.device != "cpu" and slot.index not in busy]
        return self._troubles | dict.fromkeys(idle, "nvidia-smi has not answered for a minute")

    def look(self) -> None:
        """Looks once."""
        before = self._board.occupied()
        memory, available = self._gpus(), psutil.virtual_memory().available
        busy = before | self._board.occupied()
        found = {slot.index: trouble_of(slot, memory, available) for slot in self._slots if slot.index not in busy}
        self._troubles = {index: text for index, text in found.items() if text and index in self._suspected}
        self._suspected = {index: text for index, text in found.items() if text}
        for slot in self._slots:
            self._board.warn(slot.index, self._troubles.get(slot.index, ""))
        self._looked = self._clock()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # a full disk, say; without this thread the machine would get no jobs for good
                _LOG.exception("the slots were not looked at")
            time.sleep(_INTERVAL)
