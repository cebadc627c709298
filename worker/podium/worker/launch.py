"""How torchrun is started on one machine of an attempt, and how its ranks ended."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil

_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_EXITS = "exits.json"
#: The variables by which the libraries of ranks are told which network to use.
_INTERFACE = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A machine's place among those of an attempt."""

    ranks: int
    """So many on each machine."""
    index: int = 0
    machines: int = 1
    address: str = "127.0.0.1"
    """This machine's own."""
    store: str = ""
    """Where the torchruns meet, "address:port"; empty on a machine that is alone."""
    listener: int = -1
    """On the first machine, the descriptor of the socket that listens there."""
    name: str = ""
    """Of the attempt."""

    @property
    def first(self) -> int:
        """The first rank on this machine."""
        return self.index * self.ranks


def launch(place: Place, folder: Path, *, mark: str, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts torchrun, whose ranks call at the socket `folder`/line.

    Args:
        place: this machine's.
        folder: where `exits` finds how it went.
        mark: the argument by which the processes are found.
        environment: of the ranks.
    """
    command = (sys.executable, "-m", "podium.worker.torchrun", mark, str(os.getpid()), str(folder))
    return subprocess.Popen(
        (*command, json.dumps(asdict(place))),
        env=_networked(place, environment),
        stdin=subprocess.DEVNULL,
        pass_fds=() if place.listener < 0 else (place.listener,),
    )


def exits(folder: Path) -> dict[int, int]:
    """The exit codes of the ranks that were first to exit with one, as torchrun saw them; negative: a signal."""
    try:
        found = json.loads((folder / _EXITS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {int(rank): int(code) for rank, code in found.items()}


def write_exits(folder: Path, codes: Mapping[int, int]) -> None:
    """What `exits` reads."""
    beside = folder / f"{_EXITS}.tmp"
    beside.write_text(json.dumps(codes), encoding="utf-8")
    beside.replace(folder / _EXITS)


def _networked(place: Place, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the network that the ranks are to use."""
    if place.machines == 1:
        # Ranks of one machine need not be heard by others.
        return {**environment, **dict.fromkeys(_INTERFACE, _LOOPBACK)}
    found = interface(place.address)
    # Who runs the machine may know better, and says so in the agent's environment.
    return {**(dict.fromkeys(_INTERFACE, found) if found else {}), **environment}


def interface(address: str) -> str:
    """The network device that has an address; empty: none of this machine has it, so the libraries must choose.

    Args:
        address: a number or a name.
    """
    numbers = {str(found[4][0]) for found in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)}
    if all(ip_address(number.partition("%")[0]).is_loopback for number in numbers):
        return _LOOPBACK
    own = psutil.net_if_addrs()
    return next((name for name, addresses in own.items() if any(one.address in numbers for one in addresses)), "")
