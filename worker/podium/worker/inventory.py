"""The slots of this machine: its GPUs as nvidia-smi lists them, or its CPU; and what else the pool wants to know of it.

Nothing here imports torch.
"""

import contextlib
import os
import platform
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import psutil

from podium.jobs.job import Slot

#: In the environment of a slot's processes: the devices of all slots of the machine, in the order of the slots.
SLOT_DEVICES = "PODIUM_SLOT_DEVICES"
#: In the environment of the agent: where other machines reach this one.
ADDRESS = "PODIUM_ADDRESS"
_PATIENCE = 30.0


def gpu_slots(wanted: str) -> tuple[Slot, ...]:
    """One slot for each GPU.

    Args:
        wanted: "all", or the GPUs' numbers separated by commas.

    Raises:
        ValueError: a number is not one of a GPU here.
    """
    found = _ask_nvidia("uuid", "name", "memory.total") or []
    try:
        numbers = list(range(len(found))) if wanted == "all" else [int(number) for number in wanted.split(",")]
        chosen = [found[number] for number in numbers]
    except (ValueError, IndexError):
        raise ValueError(f"--gpus {wanted}: this machine has {len(found)} GPUs; give numbers from 0, or all") from None
    return tuple(
        Slot(index=index, device=uuid, model=model, memory_bytes=_mebibytes(memory) << 20)
        for index, (uuid, model, memory) in enumerate(chosen)
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


def gpu_memory() -> Mapping[str, tuple[int, int]] | None:
    """GPU -> the free and the whole of its memory, in MiB, 0 where it cannot be told; None: nvidia-smi says nothing."""
    rows = _ask_nvidia("uuid", "memory.free", "memory.total")
    return None if rows is None else {uuid: (_mebibytes(free), _mebibytes(total)) for uuid, free, total in rows}


def versions() -> dict[str, str]:
    """Of what matters beside Podium: "python", "torch", and "driver" where there are GPUs."""
    found = {"python": platform.python_version()}
    with contextlib.suppress(PackageNotFoundError):  # __main__ says what to do about it
        found["torch"] = version("torch")
    if drivers := _ask_nvidia("uuid", "driver_version"):
        found["driver"] = drivers[0][1]
    return found


def own_address(redis_url: str, environ: Mapping[str, str] = os.environ) -> str:
    """Where other machines of the pool reach this one: PODIUM_ADDRESS, else the interface by which it reaches Redis.

    Args:
        redis_url: that of the settings; one of this machine says nothing of others.
        environ: the agent's environment.

    Returns:
        A host; empty: it cannot be told, and the machine takes no jobs of several.

    Raises:
        ValueError: PODIUM_ADDRESS is no address of this machine.
    """
    if given := environ.get(ADDRESS):
        try:
            with _socket_for(given, 0) as (probe, place):
                probe.bind(place)
        except OSError:
            message = f"{ADDRESS}={given} is no address of this machine; give one by which others reach it"
            raise ValueError(message) from None
        return given
    url = urlsplit(redis_url)
    if url.scheme == "unix" or not url.hostname:
        return ""
    try:
        with _socket_for(url.hostname, url.port or 6379) as (probe, place):
            # Sends nothing: the kernel only chooses the way.
            probe.connect(place)
            found = str(probe.getsockname()[0])
    except OSError:
        return ""
    return "" if ip_address(found).is_loopback else found


@contextlib.contextmanager
def _socket_for(host: str, port: int) -> Iterator[tuple[socket.socket, Any]]:
    """A UDP socket of the family of an address, and the address as sockets take it."""
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        yield probe, place


def parse_rows(answer: str) -> list[list[str]]:
    """The fields of nvidia-smi's answer, a list for each GPU."""
    return [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.strip()]


def _mebibytes(text: str) -> int:
    """A number of MiB; 0 for "[N/A]", as GPUs say that share the CPU's memory."""
    return int(text) if text.isdecimal() else 0


def _ask_nvidia(*fields: str) -> list[list[str]] | None:
    """The fields of every GPU; None: nvidia-smi is not there, or does not answer as it should."""
    query = ("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = parse_rows(answer)
    return rows if all(len(row) == len(fields) for row in rows) else None
