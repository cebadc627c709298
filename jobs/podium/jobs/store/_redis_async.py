"""The way to Redis for an event loop: one connection that all calls share, so that none waits for another's answer.

Commands go out at once, or with all that come while others are under way; answers come in the order of the commands.
redis-py connects; from then on the connection is ours, as it costs redis-py three times the work to pass an answer on
(docs/decisions/0018).
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from podium.jobs.settings import Settings
from podium.jobs.store._redis_link import Command, options

#: Seconds before a command is tried again whose connection broke, as `connect` does it.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
#: Seconds without an answer after which Redis counts as away.
_PATIENCE = 5.0
_NOTHING = object()
#: What redis-py makes of the first word of an error, where it matters which error it is.
_ERRORS = {
    "NOSCRIPT": redis.exceptions.NoScriptError,
    "LOADING": redis.BusyLoadingError,
    "OOM": redis.exceptions.OutOfMemoryError,
    "NOAUTH": redis.AuthenticationError,
}
#: What Redis says to a connection that is one too many, before it ends it.
_NO_ROOM = "ERR max number of clients reached"


class AsyncLink:
    """Commands on one Redis, from one event loop. Connects when it is first used.

    Args:
        settings: where it is.
        patience: seconds without an answer after which it counts as away.
    """

    def __init__(self, settings: Settings, *, patience: float = _PATIENCE) -> None:
        never = Retry(NoBackoff(), 0)
        self._pool: ConnectionPool = ConnectionPool.from_url(
            settings.redis_url, **options(settings), socket_timeout=None, retry=never
        )
        self._patience = patience
        self._line: _Line | None = None
        self._connecting: asyncio.Task[_Line] | None = None

    async def run(self, *commands: Command) -> list[Any]:
        """The answers of commands that run one after the other, others' perhaps in between.

        They are repeated when the connection breaks, so they must bear repetition.

        Raises:
            redis.RedisError: as redis-py; which of them mean that Redis is away, `reaching` knows.
        """
        for pause in _PAUSES:
            try:
                return await self._once(commands)
            except redis.ConnectionError as error:
                if isinstance(error, redis.AuthenticationError):
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        return await self._once(commands)

    def under_way(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]] | None":
        """The answers that will come, errors among them, where there is a connection; None: `run` makes one first."""
        line = self._line
        return None if line is None or line.broken else line.ask(commands)

    async def _once(self, commands: Sequence[Command]) -> list[Any]:
        line = self._line
        if line is None or line.broken:
            line = await self._connected()
        return good(await line.ask(commands))

    async def _connected(self) -> "_Line":
        # One try for all who wait, as each of their own would take its time; it goes on whoever of them leaves.
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> "_Line":
        await self._hang_up()
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
        try:
            # redis-py has a limit for the way to Redis, and none for the answer to a password.
            async with asyncio.timeout(self._patience):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            raise redis.TimeoutError("no connection") from error
        except redis.ConnectionError as error:
            # Over a Unix socket redis-py hides what Redis answered in another error.
            raise (error.__cause__ if isinstance(error.__cause__, redis.RedisError) else error) from None
        self._line = _Line(connection, self._patience)
        return self._line

    async def close(self) -> None:
        """Hangs up."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._line is not None:
            self._line.end(redis.ConnectionError("the connection was closed"))
            await self._line.connection.disconnect(nowait=True)
            self._line = None


class _Asked:
    """A question under way, and as many of its answers as have come."""

    __slots__ = ("answers", "future", "sent", "wanted")

    def __init__(self, wanted: int, future: asyncio.Future[list[Any]], sent: float) -> None:
        self.wanted = wanted
        self.future = future
        self.sent = sent
        self.answers: list[Any] = []


class _Line(asyncio.Protocol):
    """A connection, until it breaks."""

    def __init__(self, connection: AbstractConnection, patience: float) -> None:
        self.broken = False
        self.connection = connection
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Asked] = deque()
        self._unsent: list[bytes] = []
        self._under_way, self._gathering = 0, False
        self._parser = hiredis.Reader(notEnoughData=_NOTHING, replyError=_refused)
        self._patience = patience
        self._watch = self._loop.call_later(patience / 5, self._look_at_the_clock)
        # Whoever connected has read every answer to what it asked, so nothing is lost by changing hands here.
        self._transport = connection._writer.transport  # type: ignore[union-attr]  # it is connected
        self._transport.set_protocol(self)

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """The answers, errors among them.

        In place of them redis.ConnectionError: the connection broke before all were there; redis.TimeoutError: Redis
        does not answer.
        """
        if self.broken:
            raise redis.ConnectionError("the connection was lost")
        # First, as it may fail: half a question would have everybody after it take the answers of others.
        packed = b"".join(map(hiredis.pack_command, commands))  # type: ignore[arg-type]  # its stub asks for tuples of one
        asked = _Asked(len(commands), self._loop.create_future(), self._loop.time())
        self._asked.append(asked)
        self._unsent.append(packed)
        # What is asked while answers are under way goes together once they are there: Redis answers in order anyway,
        # and to send, wake and be woken takes longer than the question itself.
        if not self._under_way and not self._gathering:
            self._send()
        return asked.future

    def _send(self) -> None:
        self._gathering = False
        if self._unsent:
            self._under_way = len(self._asked)
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        answered = 0
        while (answer := self._parser.gets()) is not _NOTHING:
            if not self._asked:
                # Redis speaks before it is asked to those alone whom it does not let in.
                self.end(redis.ConnectionError("the connection was refused"))
                return
            first = self._asked[0]
            first.answers.append(answer)
            if len(first.answers) == first.wanted:
                self._asked.popleft()
                answered += 1
                if not first.future.done():  # else its caller has gone
                    first.future.set_result(first.answers)
        self._under_way -= answered
        if not self._under_way and (self._unsent or answered > 1):
            # After those who were just answered, so that what they ask next goes along.
            self._gathering = True
            self._loop.call_soon(self._send)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(redis.ConnectionError("the connection was lost"))

    def _look_at_the_clock(self) -> None:
        if self._asked and self._loop.time() - self._asked[0].sent > self._patience:
            self.end(redis.TimeoutError("no answer"))
        else:
            self._watch = self._loop.call_later(self._patience / 5, self._look_at_the_clock)

    def end(self, error: Exception) -> None:
        """Hangs up; who waits for an answer gets the error."""
        self.broken = True
        self._watch.cancel()
        self._transport.abort()
        while self._asked:
            asked = self._asked.popleft()
            if not asked.future.done():
                asked.future.set_exception(error)


def good(answers: list[Any]) -> list[Any]:
    """The answers.

    Raises:
        redis.RedisError: the first of them that is an error.
    """
    for answer in answers:
        if isinstance(answer, redis.RedisError):
            raise answer
    return answers


def _refused(words: str) -> redis.RedisError:
    if words == _NO_ROOM:
        # Of the connection and not of what was asked, of which Redis has read nothing.
        return redis.ConnectionError(words)
    kind = _ERRORS.get(words.partition(" ")[0], redis.ResponseError)
    return kind(words)
