"""TLS of the front desk: which certificate it shows, whether callers must show one, and new files without a restart."""

import ipaddress
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

_LOG = logging.getLogger(__name__)
_State: TypeAlias = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """The files, in PEM. With `client_ca` callers must show a certificate that one of its authorities signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with. The files are looked at again at every handshake.

        Raises:
            ValueError: a file cannot be used; names it and the remedy.
        """
        files = _Files(self)
        return grpc.dynamic_ssl_server_credentials(
            files.read(),
            files.changed,  # type: ignore[arg-type]  # the stubs do not know that it may return None
            require_client_authentication=self.client_ca is not None,
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file."""
        return (self.certificate, self.key, *((self.client_ca,) if self.client_ca else ()))

    def check(self) -> None:
        """Whether the files can be used together; OpenSSL says more of what is wrong than gRPC.

        Raises:
            ValueError: they cannot; names the file and the remedy.
        """
        for path in self.paths:
            try:
                path.read_bytes()
            except OSError as error:
                raise ValueError(f"{path} cannot be read ({error.strerror}); see PODIUM_TLS_*") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password, or OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            pair = f"PODIUM_TLS_CERT {self.certificate} and PODIUM_TLS_KEY {self.key}"
            remedy = "write the certificate and its own key, in PEM and without a password"
            raise ValueError(f"{pair} cannot be used ({_reason(error)}); {remedy}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                wrong = f"PODIUM_TLS_CLIENT_CA {self.client_ca} has no certificate ({_reason(error)})"
                raise ValueError(f"{wrong}; write those of the authorities that sign your callers', in PEM") from error

    def refusal(self) -> str:
        """What every caller will say against the certificate, whoever signed it: it has expired, or the like."""
        context, caller = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(self.certificate, self.key, password="")
        # One that trusts this very certificate and knows no names, in memory.
        caller.check_hostname = False
        caller.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        caller.load_verify_locations(self.certificate)
        sent, answered = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking = caller.wrap_bio(answered, sent)
        answering = context.wrap_bio(sent, answered, server_side=True)
        for side in (asking, answering, asking):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
        return ""


class _Files:
    """The files as they were when they were last good. gRPC calls this from its own threads, one at a time."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._state: _State | None = None
        self._refused: _State | None = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        state = self._look()
        self._tls.check()
        roots = self._tls.client_ca.read_bytes() if self._tls.client_ca else None
        pair = (self._tls.key.read_bytes(), self._tls.certificate.read_bytes())
        self._state = state
        if refusal := self._tls.refusal():
            remedy = "write a new one there, which is used without a restart"
            _LOG.warning("callers refuse PODIUM_TLS_CERT %s: %s; %s", self._tls.certificate, refusal, remedy)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new ones; None, which keeps the old ones, where nothing has changed or they cannot be used yet."""
        if (state := self._look()) == self._state:
            return None
        try:
            new = self.read()
        except (ValueError, OSError) as error:
            # A key is often written a moment after its certificate: the next handshake looks again.
            if state != self._refused:
                self._refused = state
                _LOG.warning("the TLS files have changed and the old ones stay in use: %s", error)
            return None
        _LOG.info("new TLS files are in use")
        return new

    def _look(self) -> _State | None:
        try:
            found = [path.stat() for path in self._tls.paths]
        except OSError:
            return None
        return tuple((status.st_mtime_ns, status.st_ino, status.st_size) for status in found)


def tls_from_environment(environ: Mapping[str, str] = os.environ) -> ServerTls | None:
    """From PODIUM_TLS_CERT, PODIUM_TLS_KEY and PODIUM_TLS_CLIENT_CA; None: callers come without TLS.

    Raises:
        ValueError: one is missing, or a file cannot be used; says what to write.
    """
    certificate, key = environ.get("PODIUM_TLS_CERT", ""), environ.get("PODIUM_TLS_KEY", "")
    client_ca = environ.get("PODIUM_TLS_CLIENT_CA", "")
    if not (certificate or key or client_ca):
        return None
    if not (certificate and key):
        missing = "PODIUM_TLS_KEY" if certificate else "PODIUM_TLS_CERT"
        raise ValueError(f"{missing} is not set; TLS needs both PODIUM_TLS_CERT and PODIUM_TLS_KEY, files in PEM")
    tls = ServerTls(certificate=Path(certificate), key=Path(key), client_ca=Path(client_ca) if client_ca else None)
    tls.check()
    return tls


def is_local(listen: str) -> bool:
    """Whether only this machine can reach an address that is listened on."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "no PEM").lower().replace("_", " ")
