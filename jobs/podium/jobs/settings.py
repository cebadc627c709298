"""Settings that rooms share, read from the environment at a program's start, never at import."""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from podium.jobs.artifacts import directory_of
from podium.jobs.locations import uri_problem
from podium.jobs.store import Leases

_LONGEST = 365 * 86_400
_REDIS_TLS = ("PODIUM_REDIS_TLS_CA", "PODIUM_REDIS_TLS_CERT", "PODIUM_REDIS_TLS_KEY")


@dataclass(frozen=True, kw_only=True)
class RedisTls:
    """Files in PEM, for a rediss:// URL."""

    ca: str | None = None
    """PODIUM_REDIS_TLS_CA: the authorities that may have signed Redis's certificate. None: those of the system."""
    cert: str | None = None
    """PODIUM_REDIS_TLS_CERT: the certificate to show, where Redis asks for one."""
    key: str | None = None
    """PODIUM_REDIS_TLS_KEY: its key."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the truth and the bytes are, and how long silence means nothing."""

    # Without the two that may hold a password: what is printed may be read.
    redis_url: str = field(repr=False)
    """PODIUM_REDIS_URL; a password may come from the file PODIUM_REDIS_PASSWORD_FILE instead of the URL."""
    redis_password: str | None = field(repr=False)
    artifacts: str
    """PODIUM_ARTIFACTS: the directory (or its file:// URL) of checkpoints and caches, shared by server and workers."""
    data_roots: tuple[str, ...]
    """PODIUM_DATA_ROOTS, separated by colons: where paths in a spec may point to. Empty: nowhere."""
    leases: Leases
    """PODIUM_LEASE_ATTEMPT, PODIUM_LEASE_STARTING, PODIUM_LEASE_NODE and PODIUM_GRACE, in seconds."""
    redis_tls: RedisTls = RedisTls()  # frozen
    uri_prefixes: tuple[str, ...] = ()
    """PODIUM_URI_PREFIXES, separated by spaces or commas: what URIs in a spec must lie below. Empty: no URI will do."""

    @property
    def ledger(self) -> str:
        """Where Redis is, for people: its URL without user, password and options."""
        parts = urlsplit(self.redis_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings.

    Raises:
        ValueError: a variable is missing or will not do, or a file cannot be read, with the remedy.
    """
    url, password, tls = _redis(environ)
    return Settings(
        redis_url=url,
        redis_password=password,
        redis_tls=tls,
        artifacts=_artifacts(environ),
        data_roots=_roots(environ.get("PODIUM_DATA_ROOTS", "")),
        leases=Leases(
            attempt=_seconds(environ, "PODIUM_LEASE_ATTEMPT", Leases.attempt),
            starting=_seconds(environ, "PODIUM_LEASE_STARTING", Leases.starting),
            node=_seconds(environ, "PODIUM_LEASE_NODE", Leases.node),
            grace=_seconds(environ, "PODIUM_GRACE", Leases.grace),
        ),
        uri_prefixes=_prefixes(environ.get("PODIUM_URI_PREFIXES", "")),
    )


def _artifacts(environ: Mapping[str, str]) -> str:
    root = _required(environ, "PODIUM_ARTIFACTS", "the directory of checkpoints, shared by server and workers")
    try:
        directory = directory_of(root)
    except ValueError as error:
        raise ValueError(f"PODIUM_ARTIFACTS: {error}") from error
    # Without a look at more: a network's disk may come later.
    if directory.is_file():
        raise ValueError(f"PODIUM_ARTIFACTS: {root} is a file; name the directory that server and workers share")
    return root


def _roots(text: str) -> tuple[str, ...]:
    roots = tuple(root for root in text.split(":") if root)
    for root in roots:
        if not Path(root).is_absolute():
            raise ValueError(
                f"PODIUM_DATA_ROOTS: {root!a} does not begin with /; write whole paths, separated by colons"
            )
    return roots


def _prefixes(text: str) -> tuple[str, ...]:
    prefixes = tuple(re.findall(r"[^\s,]+", text))
    for prefix in prefixes:
        if (problem := uri_problem(prefix)) is not None:
            raise ValueError(f"PODIUM_URI_PREFIXES: {prefix!a} {problem}")
    return prefixes


def _redis(environ: Mapping[str, str]) -> tuple[str, str | None, RedisTls]:
    """URL, password and TLS. No sentence of an error has the URL, which may hold a password."""
    url = environ.get("PODIUM_REDIS_URL", "redis://127.0.0.1:6379/0")
    scheme = url.partition("://")[0]
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError("PODIUM_REDIS_URL is to begin with redis://, rediss:// (TLS) or unix:// (a socket)")
    if not _usable(url):
        raise ValueError(
            f"PODIUM_REDIS_URL has no such port or database; write {scheme}://HOST:6379/0, a password %-encoded"
        )
    if not _options_known(url):
        raise ValueError(
            "PODIUM_REDIS_URL has an option that is none of db=NUMBER, username and password; leave it out (TLS is set "
            "by PODIUM_REDIS_TLS_*), and write a ? of a password as %3F"
        )
    password = _content(environ, "PODIUM_REDIS_PASSWORD_FILE")
    if password is not None and urlsplit(url).password is not None:
        raise ValueError("PODIUM_REDIS_URL has a password beside PODIUM_REDIS_PASSWORD_FILE; take it out of the URL")
    ca, cert, key = (environ.get(name, "") or None for name in _REDIS_TLS)
    if scheme != "rediss" and (ca or cert or key):
        raise ValueError("PODIUM_REDIS_TLS_* are set, but PODIUM_REDIS_URL does not begin with rediss://")
    if (cert is None) != (key is None):
        raise ValueError("PODIUM_REDIS_TLS_CERT and PODIUM_REDIS_TLS_KEY belong together; set both or neither")
    for name in _REDIS_TLS:
        _content(environ, name)
    _check_tls(ca, cert, key)
    return url, password, RedisTls(ca=ca, cert=cert, key=key)


def _check_tls(ca: str | None, cert: str | None, key: str | None) -> None:
    """Raises what is wrong with the files now: once connecting, it would look like a Redis that is away."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca is not None:
            context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ValueError(
            f"PODIUM_REDIS_TLS_CA: {ca} has no certificate in PEM; write those of the authorities"
        ) from error
    try:
        if cert is not None:
            # Without a password, or OpenSSL would ask for one on the terminal.
            context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        pair = f"PODIUM_REDIS_TLS_CERT {cert} and PODIUM_REDIS_TLS_KEY {key}"
        remedy = "write the certificate and its own key, in PEM and without a password"
        raise ValueError(f"{pair} cannot be used together; {remedy}") from error


def _usable(url: str) -> bool:
    """Whether redis-py reads in the URL what it says: it takes a database that is no number for the first one."""
    parts = urlsplit(url)
    try:
        return parts.scheme == "unix" or (parts.port != 0 and re.fullmatch(r"/?|/[0-9]+", parts.path) is not None)
    except ValueError:  # of the port, and with a part of a password in it where one has a slash
        return False


def _options_known(url: str) -> bool:
    """Others redis-py would put in the place of Podium's own, or not know: then it raises only when it connects."""
    options = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return all(name in ("username", "password") or (name == "db" and value.isdecimal()) for name, value in options)


def _content(environ: Mapping[str, str], name: str) -> str | None:
    """What is in the file that a variable names; None where it names none."""
    if not (path := environ.get(name, "")):
        return None
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: {path} cannot be read ({error}); see that it is there and ours to read") from error
    if not content:
        raise ValueError(f"{name}: {path} is empty")
    return content


def _required(environ: Mapping[str, str], name: str, meaning: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise ValueError(f"{name} is not set; set it to {meaning}")
    return value


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number of seconds") from None
    if not 0 < value <= _LONGEST:
        raise ValueError(f"{name}={text!r} is no time to wait; set it to seconds above 0, at most {_LONGEST} (a year)")
    return value
