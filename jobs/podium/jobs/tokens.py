"""Tokens: who may call the service, and what for. Of a token's secret only a digest is ever kept."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

#: A token's project that stands for all of them.
EVERY_PROJECT = "*"

_SECRET = re.compile(r"podium_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
#: Of any length: what lacks its last letters is soon guessed.
_LIKE_A_SECRET = re.compile(r"podium_([0-9a-f]{16})_[A-Za-z0-9_-]*")


class Role(Enum):
    """What a caller may do; each may do what the ones before it may. The values are podium.api.v1.Role's numbers."""

    VIEWER = 1
    SUBMITTER = 2
    ADMIN = 3


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token, without its secret."""

    id: str
    """ "tok-" and 16 characters. Not secret."""
    display_name: str
    project: str
    """The project that it is good for, or EVERY_PROJECT."""
    role: Role
    create_time: datetime | None = None
    expire_time: datetime | None = None
    """From when on it is refused; None: never."""
    revoke_time: datetime | None = None
    """When it was revoked; None: it was not."""
    former_secret_expire_time: datetime | None = None
    """Until when the secret before the last rotation is taken too; None: there is none."""
    created_by: str = ""
    """Who made it, as `name` has it."""

    @property
    def name(self) -> str:
        """How the audit trail and `Job.created_by` name who showed it: its id, and its name in brackets."""
        return f"{self.id} ({self.display_name})"

    def covers(self, project: str) -> bool:
        """Whether it is good for a project at all."""
        return self.project in (project, EVERY_PROJECT)

    def ended(self, now: datetime) -> datetime | None:
        """Since when it is refused; None: it is good. What was revoked is, whatever any clock says."""
        if self.revoke_time is not None:
            return self.revoke_time
        return self.expire_time if self.expire_time is not None and self.expire_time <= now else None


def new_token_id() -> str:
    """A new token's id."""
    return f"tok-{secrets.token_hex(8)}"


def new_secret(token_id: str) -> str:
    """A new secret of a token: its id, so that it is found at once, and 256 random bits."""
    return f"podium_{token_id.removeprefix('tok-')}_{secrets.token_urlsafe(32)}"


def token_id_of(secret: str) -> str | None:
    """The id of the token that a secret says it is of; None where it has not the shape of one."""
    found = _SECRET.fullmatch(secret)
    return f"tok-{found[1]}" if found else None


def digest_of(secret: str) -> bytes:
    """SHA-256 of a secret. It has 256 random bits, which no slow hash could make any harder to guess."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def without_secrets(text: str) -> str:
    """The text, each secret of a token in it, whole or in part, replaced by the token's id: one given for an id.

    >>> without_secrets("podium_0123456789abcdef_3qX")
    'tok-0123456789abcdef'
    """
    return _LIKE_A_SECRET.sub(r"tok-\1", text) if "podium_" in text else text
