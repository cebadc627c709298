"""The way to Redis: the connection, the scripts, and the one place where its failures become ours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, TypeAlias

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import PubSub
from redis.retry import Retry

from podium.jobs.errors import UnavailableError
from podium.jobs.settings import Settings

Word: TypeAlias = str | bytes | int
Command: TypeAlias = tuple[Word, ...]
Commands: TypeAlias = list[Command]

_UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, redis.exceptions.OutOfMemoryError)


def connect(settings: Settings) -> redis.Redis:
    """A client whose every command is tried again for a second or two. Nothing is sent yet.

    Its retries repeat commands whose answer was lost, so whatever it writes must bear repetition.
    """
    password = {} if settings.redis_password is None else {"password": settings.redis_password}
    client: redis.Redis = redis.Redis.from_url(
        settings.redis_url,
        protocol=2,
        decode_responses=False,
        socket_timeout=5.0,
        socket_connect_timeout=5.0,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), 5),
        **password,
    )
    return client


@contextmanager
def reaching() -> Iterator[None]:
    """Turns Redis being away, loading, read-only or full into UnavailableError."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise UnavailableError(
            "the ledger refuses our password; see PODIUM_REDIS_URL and PODIUM_REDIS_PASSWORD_FILE of this process"
        ) from error
    except _UNAVAILABLE as error:
        raise UnavailableError(
            # Without redis-py's own words: they name addresses that are nobody's business outside.
            "the ledger cannot be reached; try again, and if that does not help look whether Redis is up"
        ) from error


class Link:
    """Commands and scripts on one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._commit = client.register_script(_script("commit.lua"))
        self._lead = client.register_script(_script("lead.lua"))
        self._resign = client.register_script(_script("resign.lua"))

    def run(self, *commands: Command) -> list[Any]:
        """The answers of commands that run in one step. For reading, and for writes that bear repetition."""
        with reaching():
            pipeline = self._client.pipeline(transaction=len(commands) > 1)
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
            answers: list[Any] = pipeline.execute()
            return answers

    def commit(self, key: str, stamp: str, guards: Sequence[Command], commands: Sequence[Command]) -> str:
        """Runs commit.lua; "done", "overtaken" or "refused"."""
        words: list[Word] = [stamp, len(guards)]
        for command in (*guards, *commands):
            words += [len(command), *command]
        with reaching():
            answer: bytes = self._commit(keys=[key], args=words)
            return answer.decode()

    def lead(self, key: str, owner: str, milliseconds: int) -> bool:
        """Runs lead.lua."""
        with reaching():
            answer: int = self._lead(keys=[key], args=[owner, milliseconds])
            return answer == 1

    def resign(self, key: str, owner: str) -> None:
        """Runs resign.lua."""
        with reaching():
            self._resign(keys=[key], args=[owner])

    def pubsub(self) -> PubSub:
        """A subscriber with its own connection."""
        subscriber: PubSub = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis-py
        return subscriber


def _script(name: str) -> str:
    return resources.files("podium.jobs.store").joinpath("lua", name).read_text(encoding="utf-8")
