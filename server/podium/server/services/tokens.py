"""Tokens: make, list, rotate, revoke. Decided on one reading of all tokens, and written if it still holds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from podium.jobs.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidSpecError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from podium.jobs.store import StoredToken, TokenBook, utc_now
from podium.jobs.store.redis import RedisTokens
from podium.jobs.tokens import EVERY_PROJECT, Role, Token, digest_of, new_secret, new_token_id
from podium.server.access import DEFAULT_PROJECT, Caller, no_longer

#: A former secret is taken for so long unless the caller says otherwise.
OVERLAP = timedelta(days=1)
_LONGEST_LIFE = timedelta(days=36_500)
_LONGEST_OVERLAP = timedelta(days=90)
#: Tokens that ended so long ago are forgotten when another one is made.
_REMEMBERED = timedelta(days=90)
_MOST = 10_000
#: Of one project, so that none can take the places of the others.
MOST_OF_PROJECT = 1000
_TRIES = 20


class Tokens:
    """The tokens in the ledger. Blocks.

    Args:
        tokens: the ledger's.
        clock: the time, aware.
    """

    def __init__(self, tokens: RedisTokens, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._tokens = tokens
        self._clock = clock

    def create(
        self, caller: Caller, *, display_name: str, project: str, role: Role, time_to_live: timedelta | None
    ) -> tuple[Token, str]:
        """A new token and its secret.

        Raises:
            InvalidSpecError: it would be the first one and no admin of all projects, or its life is too long or none.
            ResourceExhaustedError: there are too many (reason TOO_MANY_TOKENS).
        """
        if time_to_live is not None and not timedelta() < time_to_live <= _LONGEST_LIFE:
            raise _wrong("time_to_live", "must be above 0 and at most 100 years; leave it out for no end")
        now = self._clock()
        token = Token(
            id=new_token_id(),
            display_name=display_name,
            project=project or DEFAULT_PROJECT,
            role=role,
            create_time=now,
            expire_time=now + time_to_live if time_to_live is not None else None,
            created_by=caller.name,
        )
        secret = new_secret(token.id)

        def decide(book: TokenBook) -> StoredToken:
            if not book.version and not caller.of_the_operator and not _is_root(token):
                raise _wrong("role", 'of the first token must be admin, and its project "*": it makes all the others')
            live = sum(
                each.token.ended(now) is None for each in book.tokens.values() if each.token.project == token.project
            )
            if live >= MOST_OF_PROJECT:
                raise ResourceExhaustedError(
                    f"the project {token.project} has {live} tokens that are good, and {MOST_OF_PROJECT} are the most: "
                    "revoke those that nobody uses (podium token ls), or give them an end (time_to_live, --ttl)",
                    reason="TOO_MANY_TOKENS",
                )
            if len(book.tokens) >= _MOST:
                raise ResourceExhaustedError(
                    f"there are {len(book.tokens)} tokens, and {_MOST} are the most; those that ended are forgotten "
                    f"after {_REMEMBERED.days} days: use longer-lived ones",
                    reason="TOO_MANY_TOKENS",
                )
            return StoredToken(token=token, digest=digest_of(secret))

        self._write(caller, token.id, decide)
        return token, secret

    def list(self, caller: Caller, project: str) -> Sequence[Token]:
        """The tokens that the caller may manage, oldest first; empty `project`: of all projects."""
        found = [stored.token for stored in self._tokens.read().tokens.values()]
        mine = [token for token in found if caller.covers(token.project) and project in ("", token.project)]
        return sorted(mine, key=lambda token: (token.create_time or datetime.min.replace(tzinfo=UTC), token.id))

    def rotate(self, caller: Caller, token_id: str, overlap: timedelta | None) -> tuple[Token, str]:
        """Another secret; the former one is taken for a while longer.

        Raises:
            NotFoundError: no such token that the caller may manage (reason TOKEN_NOT_FOUND).
            InvalidSpecError: the overlap is too long.
            FailedPreconditionError: it was revoked, or has expired.
        """
        overlap = OVERLAP if overlap is None else overlap
        if not timedelta() <= overlap <= _LONGEST_OVERLAP:
            raise _wrong("overlap", f"must be from 0 to {_LONGEST_OVERLAP.days} days")
        secret, now = new_secret(token_id), self._clock()

        def decide(book: TokenBook) -> StoredToken:
            stored = _managed(book, caller, token_id)
            if stored.token.ended(now) is not None:
                raise FailedPreconditionError(f"{stored.token.name} has ended; make another token instead")
            if stored.digest == digest_of(secret):
                return stored
            token = replace(stored.token, former_secret_expire_time=now + overlap)
            return StoredToken(token=token, digest=digest_of(secret), former_digest=stored.digest)

        return self._write(caller, token_id, decide).token, secret

    def revoke(self, caller: Caller, token_id: str) -> Token:
        """Ends a token. Repeating it changes nothing.

        Raises:
            NotFoundError: no such token that the caller may manage (reason TOKEN_NOT_FOUND).
            FailedPreconditionError: it is the last admin of all projects, and others are good (reason LAST_ADMIN).
        """
        now = self._clock()

        def decide(book: TokenBook) -> StoredToken:
            stored = _managed(book, caller, token_id)
            if stored.token.revoke_time is not None:
                return stored
            others = [
                other.token
                for other in book.tokens.values()
                if other.token.id != token_id and other.token.ended(now) is None
            ]
            last = _is_root(stored.token) and not any(map(_is_root, others))
            if last and others and not caller.of_the_operator:
                raise FailedPreconditionError(
                    f"{stored.token.name} is the last admin of all projects; make another one first, "
                    "or revoke the other tokens first",
                    reason="LAST_ADMIN",
                )
            return replace(stored, token=replace(stored.token, revoke_time=now))

        return self._write(caller, token_id, decide).token

    def _write(self, caller: Caller, token_id: str, decide: Callable[[TokenBook], StoredToken]) -> StoredToken:
        """Writes what is decided on the tokens as they are, whoever else writes at the same time.

        Of who was let in by an older look at them, as servers look once a second: with the moments left to a token, or
        to nobody's, none can be made that lasts.
        """
        for _ in range(_TRIES):
            book = self._tokens.read()
            if (stored := decide(book)) == book.tokens.get(token_id):
                return stored
            if (error := no_longer(caller, book, self._clock())) is not None:
                raise error
            if self._tokens.write(book, stored, self._forgotten(book, stored.token)):
                return stored
        raise UnavailableError("the tokens are being written by too many at once; try again")

    def _forgotten(self, book: TokenBook, written: Token) -> set[str]:
        now = self._clock()
        ends = {
            token_id: end for token_id, stored in book.tokens.items() if (end := stored.token.ended(now)) is not None
        }
        old = {token_id for token_id, end in ends.items() if end <= now - _REMEMBERED}
        others = {token_id for token_id, stored in book.tokens.items() if stored.token.project == written.project}
        others -= {written.id}
        # A project that makes short-lived ones without end keeps its own places only: the longest ended make room.
        surplus = len(others - old) + 1 - MOST_OF_PROJECT
        return old | set(sorted((others - old) & ends.keys(), key=ends.__getitem__)[: max(surplus, 0)])


def _is_root(token: Token) -> bool:
    return token.project == EVERY_PROJECT and token.role is Role.ADMIN


def _managed(book: TokenBook, caller: Caller, token_id: str) -> StoredToken:
    stored = book.tokens.get(token_id)
    if stored is None or not caller.covers(stored.token.project):
        # Without what was asked for: it might be a secret.
        raise NotFoundError("there is no such token; `podium token ls` lists them", reason="TOKEN_NOT_FOUND")
    return stored


def _wrong(field: str, description: str) -> InvalidSpecError:
    return InvalidSpecError([FieldViolation(field=field, description=description)])
