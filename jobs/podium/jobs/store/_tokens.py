"""Tokens as the ledger keeps them: with the digests of their secrets, which nothing but the server ever sees."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from podium.jobs.tokens import Token


@dataclass(frozen=True, kw_only=True)
class StoredToken:
    """A token as the ledger keeps it."""

    token: Token
    digest: bytes
    """SHA-256 of its secret."""
    former_digest: bytes = b""
    """SHA-256 of the secret before; empty: there is none."""

    def opens(self, shown: bytes, now: datetime) -> bool:
        """Whether the digest of a secret is that of its own, compared in constant time."""
        former = self.token.former_secret_expire_time
        mine = hmac.compare_digest(shown, self.digest)
        was_mine = hmac.compare_digest(shown, self.former_digest) and former is not None and now < former
        return mine or was_mine


@dataclass(frozen=True, kw_only=True)
class TokenBook:
    """All tokens at one moment."""

    version: int = 0
    """Rises with every write; 0: there has never been a token."""
    tokens: Mapping[str, StoredToken] = field(default_factory=dict)
    """By id; revoked and expired ones too."""
