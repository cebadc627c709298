"""How a client knows its server, and shows who it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files in PEM. `Tls()` trusts the authorities that the system trusts.

    >>> Tls(ca="ca.pem").ca
    'ca.pem'

    Raises:
        ValueError: a certificate without its key, or the reverse.
    """

    ca: str | Path | None = None
    """The certificates of the authorities that may have signed the server's; None: the system's."""
    cert: str | Path | None = None
    """The certificate to show to a server that asks for one (mutual TLS)."""
    key: str | Path | None = None
    """The key of `cert`."""
    server_name: str | None = None
    """The name in the server's certificate, where it is not that of the address, as through a tunnel."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate needs its key: give both cert and key, or neither")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Tls | None:
        """As PODIUM_TLS_CA, PODIUM_TLS_CLIENT_CERT, PODIUM_TLS_CLIENT_KEY and PODIUM_TLS_SERVER_NAME say.

        >>> Tls.from_environment({}) is None
        True

        Raises:
            ValueError: a certificate without its key, or the reverse.
        """
        words = {
            "ca": environ.get("PODIUM_TLS_CA"),
            "cert": environ.get("PODIUM_TLS_CLIENT_CERT"),
            "key": environ.get("PODIUM_TLS_CLIENT_KEY"),
            "server_name": environ.get("PODIUM_TLS_SERVER_NAME"),
        }
        given = {name: value for name, value in words.items() if value}
        return cls(**given) if given else None
