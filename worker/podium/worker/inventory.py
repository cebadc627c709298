"""The slots of this machine: its GPUs as nvidia-smi lists them, or its CPU. Nothing here imports torch."""

import os
import subprocess
from collections.abc import Mapping, Sequence

import psutil

from podium.jobs.job import Slot

#: In the environment of a slot's processes: the devices of all slots of the machine, in the order of the slots.
SLOT_DEVICES = "PODIUM_SLOT_DEVICES"
_QUERY = ("nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")


def gpu_slots(wanted: str) -> tuple[Slot, ...]:
    """One slot for each GPU.

    Args:
        wanted: "all", or the GPUs' numbers separated by commas.

    Raises:
        ValueError: a number is not one of a GPU here.
    """
    found = _gpus()
    try:
        numbers = list(range(len(found))) if wanted == "all" else [int(number) for number in wanted.split(",")]
        chosen = [found[number] for number in numbers]
    except (ValueError, IndexError):
        raise ValueError(f"--gpus {wanted}: this machine has {len(found)} GPUs; give numbers from 0, or all") from None
    return tuple(
        Slot(index=index, device=uuid, model=model, memory_bytes=mebibytes << 20)
        for index, (uuid, model, mebibytes) in enumerate(chosen)
    )


def cpu_slots(count: int) -> tuple[Slot, ...]:
    """So many slots that share the CPU."""
    memory = psutil.virtual_memory().total // count
    return tuple(Slot(index=index, memory_bytes=memory) for index in range(count))


def own_slots() -> tuple[Slot, ...]:
    """The GPUs; one CPU slot where there are none."""
    return gpu_slots("all") or cpu_slots(1)


def slot_devices(slots: Sequence[Slot]) -> str:
    """The value of SLOT_DEVICES for a machine with these slots."""
    return ",".join("" if slot.device == "cpu" else slot.device for slot in slots)


def devices(slots: Sequence[int], environment: Mapping[str, str] = os.environ) -> str:
    """What CUDA_VISIBLE_DEVICES must be for an attempt that holds these slots; empty where they are CPU slots.

    Args:
        slots: the attempt's, `Attempt.slots`.
        environment: of a process that the agent started for a slot.

    Raises:
        IndexError: this machine has no such slot.
    """
    known = environment[SLOT_DEVICES].split(",")
    return ",".join(filter(None, (known[slot] for slot in slots)))


def _gpus() -> list[tuple[str, str, int]]:
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.strip()]
    return [(uuid, model, int(memory) if memory.isdecimal() else 0) for uuid, model, memory in rows]
