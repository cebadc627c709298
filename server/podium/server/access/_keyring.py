"""The tokens as this server knows them: looked at once a second, so that a call costs no question to the ledger.

What was revoked or has expired is refused within 5 seconds, whatever happens: a server that has not heard from the
ledger for 4 seconds takes no token until it has, and a stream ends with its token.
"""

import asyncio
import hmac
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from podium.jobs.errors import PodiumError, UnauthenticatedError, UnavailableError
from podium.jobs.store import StoredToken, TokenBook, utc_now
from podium.jobs.store.redis import RedisTokens
from podium.jobs.tokens import EVERY_PROJECT, Role, Token, digest_of, token_id_of
from podium.server.access._caller import Caller

_LOG = logging.getLogger(__name__)
_OPERATOR = Caller(
    token=Token(
        id="tok-of-the-operator", display_name="PODIUM_ADMIN_TOKEN_FILE", project=EVERY_PROJECT, role=Role.ADMIN
    ),
    of_the_operator=True,
)
#: Compared with where there is no such token, so that it takes as long.
_NOBODYS = StoredToken(token=Token(id="", display_name="", project="", role=Role.VIEWER), digest=bytes(32))
T = TypeVar("T")


@dataclass(eq=False)
class _Leash:
    """What ends a stream with its token."""

    caller: Caller
    task: "asyncio.Task[Any] | None"
    waits: bool = False
    error: PodiumError | None = None


class Keyring:
    """The tokens, on the event loop.

    Args:
        tokens: the ledger's.
        admin_digest: of the secret that is always good; None: there is none.
        clock: the time, aware; tokens expire by it.
        look: seconds between two looks.
        patience: seconds without the ledger after which no token of its is taken. With `look` below 5.
    """

    def __init__(
        self,
        tokens: RedisTokens,
        *,
        admin_digest: bytes | None = None,
        clock: Callable[[], datetime] = utc_now,
        look: float = 1.0,
        patience: float = 4.0,
    ) -> None:
        self._look_every = look
        self._patience = patience
        self._tokens = tokens
        self._admin_digest = admin_digest
        self._clock = clock
        self._book = TokenBook()
        self._closed = admin_digest is not None
        self._heard = -math.inf
        self._looking = asyncio.Lock()
        # Of its own: the calls' threads may all wait for a ledger that hangs.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podium-tokens")
        self._task: asyncio.Task[None] | None = None
        self._leashes: set[_Leash] = set()

    async def start(self) -> None:
        """Looks at the tokens, now and from now on."""
        with suppress(UnavailableError):
            await self.look()
        self._task = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False)

    async def look(self) -> None:
        """Learns of every token that was written before this call. Calls that wait at the same time share one look.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        asked = time.monotonic()
        async with self._looking:
            if self._heard < asked:
                began = time.monotonic()
                loop = asyncio.get_running_loop()
                self._book = await loop.run_in_executor(self._thread, self._read, self._book)
                self._heard = began
                # For good: that the ledger has lost its data is no reason to let everybody in.
                self._closed = self._closed or self._book.version > 0

    def _read(self, known: TokenBook) -> TokenBook:
        return known if self._tokens.version() == known.version else self._tokens.read()

    async def _keep_looking(self) -> None:
        look: asyncio.Task[None] | None = None
        while True:
            await asyncio.sleep(self._look_every)
            if look is None or look.done():
                look = asyncio.create_task(self._look_and_tell())
            # Streams end in time also while the ledger hangs: a token expires by the clock.
            await asyncio.wait([look], timeout=self._look_every)
            self._end_streams()

    async def _look_and_tell(self) -> None:
        try:
            await self.look()
        except UnavailableError as error:
            _LOG.warning("the tokens cannot be looked at: %s", error.message)
        except Exception:
            _LOG.exception("the tokens cannot be read")

    @property
    def open(self) -> bool:
        """Whether this server is sure that it needs no tokens."""
        return not self._closed and self._heard != -math.inf

    @property
    def asks(self) -> bool:
        """Whether a call needs a token: from the first one on, and where the operator's file is.

        Raises:
            UnavailableError: this server has not heard from the ledger yet.
        """
        if self._heard == -math.inf and not self._closed:
            raise _not_heard()
        return self._closed

    def holder(self, secret: str) -> Caller | None:
        """Who shows this secret; None: it is of no token that is known here.

        Raises:
            UnauthenticatedError: its token was revoked or has expired (reasons TOKEN_REVOKED, TOKEN_EXPIRED).
            UnavailableError: whether it is still good cannot be told now.
        """
        shown, now = digest_of(secret), self._clock()
        if self._admin_digest is not None and hmac.compare_digest(shown, self._admin_digest):
            return _OPERATOR
        if time.monotonic() - self._heard > self._patience:
            raise _not_heard()
        stored = self._book.tokens.get(token_id_of(secret) or "")
        if not (stored or _NOBODYS).opens(shown, now) or stored is None:
            return None
        if (error := _ended(stored.token, now)) is not None:
            raise error
        return Caller(stored.token, digest=shown)

    def name_of(self, secret: str) -> str:
        """The name of the token that this secret says it is of, whether or not it opens it; empty: of none."""
        stored = self._book.tokens.get(token_id_of(secret) or "")
        return stored.token.name if stored else ""

    # Streams

    async def leashed(self, responses: AsyncGenerator[T, None], caller: Caller) -> AsyncGenerator[T, None]:
        """The responses, for as long as the caller would be let in.

        Raises:
            UnauthenticatedError: its token was revoked, has expired, or has another secret; or it has none, and there
                are tokens now.
        """
        leash = _Leash(caller, asyncio.current_task())
        self._leashes.add(leash)
        try:
            async with aclosing(responses):
                while True:
                    try:
                        yield await self._next(responses, leash)
                    except StopAsyncIteration:
                        return
        finally:
            self._leashes.discard(leash)

    async def _next(self, responses: AsyncGenerator[T, None], leash: _Leash) -> T:
        """The next response. Only while a stream waits for it is it cut short: in gRPC's own hands it cannot be."""
        if leash.error is not None:
            raise leash.error
        leash.waits = True
        try:
            return await anext(responses)
        except asyncio.CancelledError:
            # Cancelled by us and by nobody else.
            if leash.error is not None and leash.task is not None and leash.task.uncancel() == 0:
                raise leash.error from None
            raise
        finally:
            leash.waits = False

    def _end_streams(self) -> None:
        for leash in self._leashes:
            # Once: a second cancel would be taken for one by somebody else.
            if leash.error is None and (error := no_longer(leash.caller, self._book, self._clock())) is not None:
                leash.error = error
                if leash.waits and leash.task is not None:
                    leash.task.cancel()


def no_longer(caller: Caller, book: TokenBook, now: datetime) -> PodiumError | None:
    """Why somebody who was let in would not be with these tokens; None: they would."""
    if caller.of_the_operator:
        return None
    if caller.token is None:
        return token_missing() if book.version else None
    stored = book.tokens.get(caller.token.id)
    if stored is not None and (error := _ended(stored.token, now)) is not None:
        return error
    # What is no longer listed ended long ago.
    return None if stored is not None and stored.opens(caller.digest, now) else token_unknown()


def token_missing() -> UnauthenticatedError:
    """A call without a token, where one is needed."""
    return UnauthenticatedError(
        "this server asks for a token; set PODIUM_TOKEN, or PODIUM_TOKEN_FILE to a file that has it; "
        "in Python, Client(token=token_from_environment())",
        reason="TOKEN_MISSING",
    )


def token_unknown() -> UnauthenticatedError:
    """A call with a secret that opens nothing, or no longer."""
    return UnauthenticatedError(
        "this server knows no such token; look whether PODIUM_TOKEN is whole, and of this server",
        reason="TOKEN_UNKNOWN",
    )


def _ended(token: Token, now: datetime) -> PodiumError | None:
    ended = token.ended(now)
    if ended is None:
        return None
    how, reason = ("was revoked", "TOKEN_REVOKED") if token.revoke_time else ("expired", "TOKEN_EXPIRED")
    return UnauthenticatedError(
        f"the token {token.name} {how} at {ended:%Y-%m-%d %H:%M:%S} UTC; ask whoever runs the server for another",
        reason=reason,
    )


def _not_heard() -> PodiumError:
    return UnavailableError("the ledger cannot be reached, so no token can be looked at; try again")
