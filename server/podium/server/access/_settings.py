"""What the operator says about callers, read from the environment at the server's start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from podium.jobs.secret_files import open_to_others
from podium.jobs.tokens import digest_of

_SHORTEST = 32


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """What the operator says about callers."""

    admin_digest: bytes | None = field(default=None, repr=False)
    """Of PODIUM_ADMIN_TOKEN_FILE's secret, whose holder is an admin of all projects; None: there is no such file."""
    calls_per_second: int = 1000
    """PODIUM_CALLS_PER_SECOND: calls that one caller may make of one server process; 0: no limit."""
    streams_per_caller: int = 1000
    """PODIUM_STREAMS_PER_CALLER: streams that one caller may hold open at one server process; 0: no limit."""
    audit_kept: int = 1_000_000
    """PODIUM_AUDIT_KEPT: events that the audit trail keeps, about; the oldest go."""


def access_from_environment(environ: Mapping[str, str] = os.environ) -> AccessSettings:
    """The operator's word.

    Raises:
        ValueError: a variable is not what it is to be, or the file is too short, too open or cannot be read, with the
            remedy.
    """
    file = environ.get("PODIUM_ADMIN_TOKEN_FILE", "")
    return AccessSettings(
        admin_digest=digest_of(_secret(Path(file))) if file else None,
        calls_per_second=_number(environ, "PODIUM_CALLS_PER_SECOND", AccessSettings.calls_per_second, least=0),
        streams_per_caller=_number(environ, "PODIUM_STREAMS_PER_CALLER", AccessSettings.streams_per_caller, least=0),
        audit_kept=_number(environ, "PODIUM_AUDIT_KEPT", AccessSettings.audit_kept, least=1),
    )


def _secret(path: Path) -> str:
    for problem in open_to_others({"PODIUM_ADMIN_TOKEN_FILE": path}):
        raise ValueError(problem)
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"PODIUM_ADMIN_TOKEN_FILE: {path} cannot be read ({error})"
        raise ValueError(f"{reason}; see that it is there and ours to read") from error
    if len(secret) < _SHORTEST or not secret.isascii() or any(letter.isspace() for letter in secret):
        raise ValueError(
            f"PODIUM_ADMIN_TOKEN_FILE: {path} has no word of at least {_SHORTEST} letters; write one with: "
            f"openssl rand -hex 32 > {path}"
        )
    return secret


def _number(environ: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isascii() or not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name}={text!r} is not a whole number from {least}")
    return int(text)
