"""One HTTP request to somebody whom we do not trust: to an address that was looked at, once, and not for long."""

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Seconds for one step, such as connecting or one read; and for all of a request, however slowly it drips.
STEP, WHOLE = 5.0, 15.0
#: Addresses in which gateways of IPv6 networks wrap those of IPv4.
_WRAPPED = ipaddress.IPv6Network("64:ff9b::/96")
#: Not of the internet, whatever this version of Python knows: one cloud's metadata are at 192.0.0.192, and site-local
#: addresses of IPv6 are given up, and still routed where somebody has them.
_OURS = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("fec0::/10"))


class Undelivered(Exception):
    """It did not arrive, or was not taken; says why, and nothing that the receiver said."""


def post(url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool) -> None:
    """Sends a body; returns when the receiver has answered 2xx.

    The name is resolved here, once, and the connection goes to the very address that was found to be public: a name
    that means something else a moment later leads nowhere. No redirect is followed, no proxy asked, and of the answer
    only the status is read.

    Raises:
        Undelivered: anything else.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    trouble, end = "it took too long", time.monotonic() + WHOLE
    for address in _resolved(host, port, allow_private):
        if (left := end - time.monotonic()) <= 0:
            break
        connection = _connection(parts, str(address), port)
        with contextlib.closing(connection), _at_most(left, connection):
            try:
                connection.connect()
            except (HTTPError, OSError) as error:
                trouble = _in_words(error)
                continue
            if time.monotonic() >= end:
                # Its time was over before there was a connection to break.
                break
            status = _status(connection, parts, body, headers)
        if not 200 <= status < 300:
            raise Undelivered(
                f"it answered {status}" + (", and redirects are not followed" if status // 100 == 3 else "")
            )
        return
    raise Undelivered(f"it cannot be reached: {trouble}")


def _resolved(host: str, port: int, allow_private: bool) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Undelivered(f"its name has no address: {error}") from error
    addresses = list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    usable = [address for address in addresses if allow_private or is_public(address)]
    if not usable:
        raise Undelivered("its address is private; PODIUM_WEBHOOKS_ALLOW_PRIVATE=1 allows that")
    return usable


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet: neither ours, nor this machine's, nor one that wraps such a one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _WRAPPED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    special = address.is_multicast or address.is_reserved or any(address in network for network in _OURS)
    return address.is_global and not special


def _connection(parts: SplitResult, address: str, port: int) -> HTTPConnection:
    if parts.scheme == "http":
        return HTTPConnection(address, port, timeout=STEP)
    # The certificate is still that of the name.
    return HTTPSConnection(
        address,
        port,
        timeout=STEP,
        cert_reqs="CERT_REQUIRED",
        server_hostname=parts.hostname,
        assert_hostname=parts.hostname,
    )


@contextlib.contextmanager
def _at_most(seconds: float, connection: HTTPConnection) -> Iterator[None]:
    """Breaks the connection when its time is over: a receiver that sends a byte now and then passes every timeout."""
    timer = threading.Timer(seconds, _broken, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _broken(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _status(connection: HTTPConnection, parts: SplitResult, body: bytes, headers: Mapping[str, str]) -> int:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body=body, headers={**headers, "Host": parts.netloc}, preload_content=False)
        return connection.getresponse().status
    except HTTPException as error:  # an answer in another protocol, endless headers: urllib3 lets them pass
        raise Undelivered(f"what it answered is no HTTP: {type(error).__name__}") from error
    except (HTTPError, OSError, ValueError) as error:
        raise Undelivered(_in_words(error)) from error


def _in_words(error: Exception) -> str:
    """The kind of error: its words may repeat what a receiver sent."""
    return f"{type(error).__name__}" + (f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else "")
