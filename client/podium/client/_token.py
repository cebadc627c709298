"""What a client shows to a server that asks for tokens, and where it must not be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from podium.jobs.errors import FailedPreconditionError

_ALLOWED = "PODIUM_ALLOW_INSECURE_TOKEN"
#: What may stand in front of an address in gRPC's own way of writing it.
_SCHEME = re.compile(r"(dns|ipv4|ipv6):(//[^/]*/)?")


def token_from_environment(environ: Mapping[str, str] = os.environ) -> str | None:
    """PODIUM_TOKEN, or what the file of PODIUM_TOKEN_FILE has; None where neither is set.

    >>> token_from_environment({"PODIUM_TOKEN": "podium_0123"})
    'podium_0123'

    Raises:
        ValueError: the file cannot be read.
    """
    if token := environ.get("PODIUM_TOKEN"):
        return token
    file = environ.get("PODIUM_TOKEN_FILE")
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"PODIUM_TOKEN_FILE: {file} cannot be read ({why})") from None


def shown(
    token: str | None, target: str, *, encrypted: bool, environ: Mapping[str, str] = os.environ
) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a token; none without one.

    Args:
        token: the secret.
        target: the server's address.
        encrypted: whether the way there is.
        environ: PODIUM_ALLOW_INSECURE_TOKEN=1 allows an unencrypted way, as through a tunnel or within a mesh.

    Raises:
        ValueError: it is no secret of a token: it has a space, or letters that no secret has. It is not repeated.
        FailedPreconditionError: whoever is on the way could read it (reason TOKEN_IN_THE_CLEAR).
    """
    if not token:
        return ()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("the token is no secret of a token: one is a word without spaces; see `podium token create`")
    if not encrypted and not is_loopback(target) and environ.get(_ALLOWED) != "1":
        raise FailedPreconditionError(
            f"the way to {target} is not encrypted, and whoever is on it could read the token: use TLS (--tls, "
            f"PODIUM_TLS_CA, Client(tls=...)), or set {_ALLOWED}=1 where something else encrypts it",
            reason="TOKEN_IN_THE_CLEAR",
        )
    return (("authorization", f"Bearer {token}"),)


def is_loopback(target: str) -> bool:
    """Whether an address never leaves this machine.

    >>> [is_loopback(target) for target in ("127.0.0.1:50051", "[::1]:50051", "unix:/run/podium.sock", "10.0.0.1:1")]
    [True, True, True, False]
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    import ipaddress  # only for who has a token: a client is quick to import

    host = _SCHEME.sub("", target, count=1).rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
