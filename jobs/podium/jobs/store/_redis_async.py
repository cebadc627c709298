"""The way to Redis for an event loop: one connection that all calls share, so that none waits for another's answer.

Commands go out as they come, and answers come in the order of the commands; redis-py connects, packs and parses. A
connection for each call, or a thread for each, costs several times the work (docs/decisions/0014).
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from podium.jobs.settings import Settings
from podium.jobs.store._redis_link import Command, options, reaching

#: Seconds before a command is tried again whose connection broke, as `connect` does it.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
#: Seconds without an answer after which Redis counts as away.
_PATIENCE = 5.0


class AsyncLink:
    """Commands on one Redis, from one event loop. Connects when it is first used."""

    def __init__(self, settings: Settings) -> None:
        never = Retry(NoBackoff(), 0)
        self._pool: ConnectionPool = ConnectionPool.from_url(
            settings.redis_url, **options(settings), socket_timeout=None, retry=never
        )
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()

    async def run(self, *commands: Command) -> list[Any]:
        """The answers of commands that run one after the other, others' perhaps in between.

        They are repeated when the connection breaks, so they must bear repetition.

        Raises:
            UnavailableError: Redis is away, or takes no writes.
            redis.ResponseError: a command is wrong.
        """
        with reaching():
            for pause in _PAUSES:
                try:
                    return await self._once(commands)
                except redis.ConnectionError as error:
                    if isinstance(error, redis.AuthenticationError):
                        raise
                    await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            return await self._once(commands)

    async def _once(self, commands: Sequence[Command]) -> list[Any]:
        line = self._line
        if line is None or line.broken:
            line = await self._connected()
        answers = await line.ask(commands)
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        return answers

    async def _connected(self) -> "_Line":
        async with self._connecting:
            if self._line is None or self._line.broken:
                connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
                self._line = _Line(connection)
            return self._line

    async def close(self) -> None:
        """Hangs up; nothing may be asked any more."""
        if self._line is not None:
            await self._line.close()


class _Asked:
    """A question under way, and as many of its answers as have come."""

    __slots__ = ("answers", "future", "sent", "wanted")

    def __init__(self, wanted: int, future: asyncio.Future[list[Any]], sent: float) -> None:
        self.wanted = wanted
        self.future = future
        self.sent = sent
        self.answers: list[Any] = []


class _Line:
    """A connection, until it breaks."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Asked] = deque()
        self.broken = False
        self._reading = self._loop.create_task(self._read())
        self._watch = self._loop.call_later(1.0, self._look_at_the_clock)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, errors among them.

        Raises:
            redis.ConnectionError: the connection broke before all were there.
            redis.TimeoutError: Redis does not answer.
        """
        pack = self._connection.pack_command
        data = [chunk for command in commands for chunk in pack(*command)]
        asked = _Asked(len(commands), self._loop.create_future(), self._loop.time())
        # From here to the write nobody else gets a turn, so that answers and questions have the same order.
        self._asked.append(asked)
        await self._connection.send_packed_command(data, check_health=False)
        return await asked.future

    async def _read(self) -> None:
        error: BaseException = redis.ConnectionError("the connection was closed")
        try:
            while True:
                try:
                    answer = await self._connection.read_response()
                except redis.ResponseError as refused:
                    answer = refused
                first = self._asked[0]
                first.answers.append(answer)
                if len(first.answers) == first.wanted:
                    self._asked.popleft()
                    if not first.future.done():  # else its caller has gone
                        first.future.set_result(first.answers)
        except Exception as broke:
            error = broke
        finally:
            self._end(error)

    def _look_at_the_clock(self) -> None:
        if self._asked and self._loop.time() - self._asked[0].sent > _PATIENCE:
            self._end(redis.TimeoutError("no answer"))
        else:
            self._watch = self._loop.call_later(1.0, self._look_at_the_clock)

    def _end(self, error: BaseException) -> None:
        self.broken = True
        self._watch.cancel()
        self._reading.cancel()
        while self._asked:
            asked = self._asked.popleft()
            if not asked.future.done():
                asked.future.set_exception(error)

    async def close(self) -> None:
        self._end(redis.ConnectionError("the connection was closed"))
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._connection.disconnect()
