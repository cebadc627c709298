"""Settings that rooms share, read from the environment at a program's start, never at import."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from podium.jobs.locations import uri_problem
from podium.jobs.store import Leases

_LONGEST = 365 * 86_400


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the truth and the bytes are, and how long silence means nothing."""

    redis_url: str
    """PODIUM_REDIS_URL; a password may come from the file PODIUM_REDIS_PASSWORD_FILE instead of the URL."""
    redis_password: str | None
    artifacts: str
    """PODIUM_ARTIFACTS: the directory (or its file:// URL) of checkpoints and caches, shared by server and workers."""
    data_roots: tuple[str, ...]
    """PODIUM_DATA_ROOTS, separated by colons: where paths in a spec may point to. Empty: nowhere."""
    leases: Leases
    """PODIUM_LEASE_ATTEMPT, PODIUM_LEASE_STARTING, PODIUM_LEASE_NODE and PODIUM_GRACE, in seconds."""
    uri_prefixes: tuple[str, ...] = ()
    """PODIUM_URI_PREFIXES, separated by spaces or commas: what URIs in a spec must lie below. Empty: no URI will do."""


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings.

    Raises:
        ValueError: a variable is missing or not a number, with the remedy.
    """
    password_file = environ.get("PODIUM_REDIS_PASSWORD_FILE", "")
    return Settings(
        redis_url=environ.get("PODIUM_REDIS_URL", "redis://127.0.0.1:6379/0"),
        redis_password=_secret(password_file) if password_file else None,
        artifacts=_required(environ, "PODIUM_ARTIFACTS", "the directory of checkpoints, shared by server and workers"),
        data_roots=tuple(root for root in environ.get("PODIUM_DATA_ROOTS", "").split(":") if root),
        leases=Leases(
            attempt=_seconds(environ, "PODIUM_LEASE_ATTEMPT", Leases.attempt),
            starting=_seconds(environ, "PODIUM_LEASE_STARTING", Leases.starting),
            node=_seconds(environ, "PODIUM_LEASE_NODE", Leases.node),
            grace=_seconds(environ, "PODIUM_GRACE", Leases.grace),
        ),
        uri_prefixes=_prefixes(environ.get("PODIUM_URI_PREFIXES", "")),
    )


def _prefixes(text: str) -> tuple[str, ...]:
    prefixes = tuple(re.findall(r"[^\s,]+", text))
    for prefix in prefixes:
        if (problem := uri_problem(prefix)) is not None:
            raise ValueError(f"PODIUM_URI_PREFIXES: {prefix!a} {problem}")
    return prefixes


def _secret(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()


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
