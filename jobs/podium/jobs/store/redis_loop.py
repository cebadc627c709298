"""Redis for a RedisStore whose methods are called within `podium.jobs.blocking.on_loop`: no threads, one connection."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import redis

from podium.jobs.blocking import wait_for
from podium.jobs.settings import Settings
from podium.jobs.store._redis_async import AsyncLink, good
from podium.jobs.store._redis_link import Command, Word, connect

__all__ = ["connect_on_loop"]


def connect_on_loop(settings: Settings) -> redis.Redis:
    """As `connect`, for one event loop. Nothing is sent yet."""
    return cast(redis.Redis, _LoopClient(settings))


class _LoopClient:
    """As much of redis.Redis as a ledger's link uses."""

    def __init__(self, settings: Settings) -> None:
        self._link = AsyncLink(settings)
        # It is never connected: redis-py alone knows what becomes of each command's answer.
        self.response_callbacks: Mapping[str, Callable[..., Any]] = dict(connect(settings).response_callbacks)

    def execute_command(self, *command: Word) -> Any:
        return self.understood(command, self.ask([command])[0])

    def pipeline(self) -> "_Pipeline":
        return _Pipeline(self)

    def register_script(self, script: str) -> Callable[..., Any]:
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

        def run(keys: Sequence[Word] = (), args: Sequence[Word] = ()) -> Any:
            words = (len(keys), *keys, *args)
            try:
                return self.ask([("EVALSHA", sha, *words)])[0]
            except redis.exceptions.NoScriptError:
                return self.ask([("EVAL", script, *words)])[0]

        return run

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands, as they come."""
        answers = self._link.under_way(commands)
        if answers is not None:
            try:
                # Without a coroutine in between, as nearly every question ends here.
                return good(wait_for(answers))
            except redis.ConnectionError:
                pass
        return wait_for(self._link.run(*commands))

    def understood(self, command: Command, answer: Any) -> Any:
        """The answer as redis-py gives it."""
        callback = self.response_callbacks.get(str(command[0]))
        return answer if callback is None else callback(answer)

    def close(self) -> None:
        """Hangs up."""
        wait_for(self._link.close())


class _Pipeline:
    """Commands in one step."""

    def __init__(self, client: _LoopClient) -> None:
        self._client = client
        self._commands: list[Command] = []

    def execute_command(self, *command: Word) -> None:
        self._commands.append(command)

    def execute(self) -> list[Any]:
        answers = self._client.ask([("MULTI",), *self._commands, ("EXEC",)])[-1]
        return [self._client.understood(*pair) for pair in zip(self._commands, good(answers), strict=True)]
