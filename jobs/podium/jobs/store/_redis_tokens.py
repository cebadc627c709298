"""The tokens, as they stand in Redis: one hash, read as a whole, as there are few and they seldom change."""

import secrets
from collections.abc import Iterable

import redis

from podium.jobs import wire
from podium.jobs.store._redis_keys import Keys
from podium.jobs.store._redis_link import Link
from podium.jobs.store._tokens import StoredToken, TokenBook
from podium.jobs.tokens import Token

#: Bytes of a SHA-256; a record is the digest, the former one (zeros: none), and the token's message.
_DIGEST = 32
_NONE = bytes(_DIGEST)
_NOT_TOKENS = (b"version", b"writer")


class RedisTokens:
    """The tokens that every server of the cluster shares. Threads may share it.

    Args:
        client: from `connect`.
        prefix: of every key.
    """

    def __init__(self, client: redis.Redis, *, prefix: str = "podium:") -> None:
        self._link = Link(client)
        self._key = Keys(prefix=prefix).tokens

    def version(self) -> int:
        """The version of the book, at little cost.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        return int(self._link.run(("HGET", self._key, "version"))[0] or 0)

    def read(self) -> TokenBook:
        """All tokens.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        (fields,) = self._link.run(("HGETALL", self._key))
        tokens = {name.decode(): _stored(data) for name, data in fields.items() if name not in _NOT_TOKENS}
        return TokenBook(version=int(fields.get(b"version", 0)), tokens=tokens)

    def write(self, read: TokenBook, stored: StoredToken, forgotten: Iterable[str] = ()) -> bool:
        """Writes a token and forgets others; False, and nothing, where anybody has written since `read`.

        Raises:
            UnavailableError: the ledger cannot be reached; it may have been written all the same.
        """
        changes = {stored.token.id: _record(stored), **dict.fromkeys(forgotten, b"")}
        return self._link.write_tokens(self._key, read.version, secrets.token_hex(8), changes)


def _record(stored: StoredToken) -> bytes:
    return stored.digest + (stored.former_digest or _NONE) + wire.to_bytes(stored.token)


def _stored(data: bytes) -> StoredToken:
    former = data[_DIGEST : 2 * _DIGEST]
    return StoredToken(
        token=wire.from_bytes(Token, data[2 * _DIGEST :]),
        digest=data[:_DIGEST],
        former_digest=b"" if former == _NONE else former,
    )
