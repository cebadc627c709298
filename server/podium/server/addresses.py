"""Addresses to listen on."""

import ipaddress


def check_address(listen: str) -> None:
    """GRPC takes a port above 65535 for another one, and says of an address without one only that it cannot have it.

    Raises:
        OSError: it is neither HOST:PORT nor unix:PATH, with the remedy.
    """
    host, _, port = listen.rpartition(":")
    if not listen.startswith("unix") and not (host and port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16):
        raise OSError(f"--listen {listen!r}: write HOST:PORT, such as 127.0.0.1:50051, with a port of at most 65535")


def is_local(listen: str) -> bool:
    """Whether only this machine can reach an address that is listened on."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
