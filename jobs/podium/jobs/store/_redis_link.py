"""The way to Redis: the connection, the scripts, and the one place where its failures become ours."""

import itertools
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias, TypeVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import PubSub
from redis.retry import Retry

from podium.jobs.errors import UnavailableError
from podium.jobs.settings import Settings
from podium.jobs.states import MOVES, State

Word: TypeAlias = str | bytes | int
Command: TypeAlias = tuple[Word, ...]
Commands: TypeAlias = list[Command]
T = TypeVar("T")

#: Seconds without an answer, and those without a free connection, after which Redis counts as away.
_PATIENCE = 5.0
_UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError)
#: What Redis answers while it is there and cannot write: it is full, its disk is, or it became a replica.
_NOT_NOW = (redis.ReadOnlyError, redis.exceptions.OutOfMemoryError)
#: The same where redis-py has no class for it, as for all that stands within the words of a script's error in Redis 6.
_NOT_NOW_IN_WORDS = re.compile(r"\b(OOM|MISCONF|READONLY|NOREPLICAS|BUSY) ")
_NO_PERMISSION = (
    "the ledger does not let this process do what it must; give its Redis user the rights of deploy/redis/users.conf"
)
_NO_TLS = (
    "there is no secure connection to the ledger; see PODIUM_REDIS_URL and PODIUM_REDIS_TLS_* of this process, and "
    "that Redis's certificate is for its name and has not expired"
)


def options(settings: Settings) -> dict[str, Any]:
    """What redis-py is told of a connection, whether a thread or an event loop waits on it."""
    password = {} if settings.redis_password is None else {"password": settings.redis_password}
    return {
        "protocol": 2,
        "decode_responses": False,
        "socket_connect_timeout": 5.0,
        # No CLIENT SETINFO at each connection: users of Redis need no right to CLIENT.
        "driver_info": None,
        **password,
        **_tls(settings),
    }


def connect(settings: Settings, *, connections: int | None = None) -> redis.Redis:
    """A client whose every command is tried again for a second or two. Nothing is sent yet.

    Args:
        settings: where Redis is.
        connections: as many at most; a thread that finds all of them in use waits for one. None: as many as there are
            threads that ask at the same time.

    Its retries repeat commands whose answer was lost, so whatever it writes must bear repetition. A command that is
    not answered in time is not repeated: redis-py's retries lie within one another, and one command would take minutes.
    """
    told = {
        **options(settings),
        "socket_timeout": _PATIENCE,
        "health_check_interval": 15,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), 5, supported_errors=(redis.ConnectionError,)),
    }
    if connections is None:
        client: redis.Redis = redis.Redis.from_url(settings.redis_url, **told)
        return client
    pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url, **told, max_connections=connections, timeout=_PATIENCE
    )
    return redis.Redis.from_pool(pool)


def _tls(settings: Settings) -> dict[str, Any]:
    """Certificates and names are checked by default, and here whatever the default is."""
    if not settings.redis_url.startswith("rediss://"):
        return {}
    tls = settings.redis_tls
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    return {**files, "ssl_cert_reqs": "required", "ssl_check_hostname": True}


class reaching:
    """A `with` block in which Redis being away, loading, read-only or full is UnavailableError."""

    # A class, as every question passes here: a generator would have to be started and ended for each.
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, redis.RedisError) and (sentence := _unavailable(error)):
            raise UnavailableError(sentence) from error


def _unavailable(error: redis.RedisError) -> str:
    """What callers are told where Redis does not do its work now; empty: it does, and the question was wrong."""
    if isinstance(error, redis.AuthenticationError):
        return "the ledger refuses our password; see PODIUM_REDIS_URL and PODIUM_REDIS_PASSWORD_FILE of this process"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return _NO_PERMISSION
    if isinstance(error, _UNAVAILABLE):
        if isinstance(error.__context__, ssl.SSLError):
            return _NO_TLS
        # Without redis-py's own words: they name addresses that are nobody's business outside.
        return "the ledger cannot be reached; try again, and if that does not help look whether Redis is up"
    if not isinstance(error, redis.ResponseError):
        return ""
    words = str(error)
    if "NOPERM" in words or "can't run this command" in words or "can't access" in words:
        return _NO_PERMISSION
    if isinstance(error, _NOT_NOW) or _NOT_NOW_IN_WORDS.search(words):
        return (
            "the ledger takes no writes now; try again, and if that does not help look at Redis' log, memory and disk"
        )
    return ""


def pages(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """The items, so many at a time."""
    rest = iter(items)
    while page := tuple(itertools.islice(rest, size)):
        yield page


@dataclass(frozen=True, kw_only=True)
class Move:
    """What commit.lua is to know of a write: ARGV[1] to ARGV[7], explained there."""

    stamp: str
    next_stamp: str
    state: State
    fence: int
    path: Sequence[State]
    shown: int | None
    next_fence: int

    @property
    def words(self) -> list[Word]:
        """In the script's order."""
        path = " ".join(state.name for state in self.path)
        shown = "" if self.shown is None else self.shown
        return [self.stamp, self.next_stamp, self.state.name, self.fence, path, shown, self.next_fence]


class Link:
    """Commands and scripts on one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._commit = client.register_script("\n".join([_moves(), _script("run.lua"), _script("commit.lua")]))
        self._enter = client.register_script(_script("enter.lua"))
        self._guarded = client.register_script("\n".join([_script("run.lua"), _script("guarded.lua")]))
        self._each = client.register_script(_script("each.lua"))
        self._log = client.register_script(_script("log.lua"))
        self._read = client.register_script(_script("read.lua"))
        self._lead = client.register_script(_script("lead.lua"))
        self._resign = client.register_script(_script("resign.lua"))
        self._tokens = client.register_script(_script("tokens.lua"))
        self._audit = client.register_script(_script("audit.lua"))

    def run(self, *commands: Command) -> list[Any]:
        """The answers of commands that run in one step. For reading, and for writes that bear repetition."""
        with reaching():
            if len(commands) == 1:  # half the work of a pipeline
                return [self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]  # redis-py
            pipeline = self._client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
            try:
                answers: list[Any] = pipeline.execute()
            except redis.exceptions.OutOfMemoryError:
                return self._run_while_full(commands)
            return answers

    def _run_while_full(self, commands: Sequence[Command]) -> list[Any]:
        """As `run`: a Redis that is full lets nothing into a transaction; a script may read, and make room."""
        parsers = self._client.response_callbacks
        raw: list[Any] = self._each(args=[word for command in commands for word in (len(command), *command)])
        return [
            parsers[command[0]](answer) if command[0] in parsers else answer
            for command, answer in zip(commands, raw, strict=True)
        ]

    def commit(self, key: str, move: Move, guards: Sequence[Command], commands: Sequence[Command]) -> str:
        """Runs commit.lua on a job's hash; what it answers.

        Args:
            key: of the hash.
            move: what the write is.
            guards: commands, each after the number that it must return.
            commands: what to write.
        """
        with reaching():
            answer: bytes = self._commit(keys=[key], args=[*move.words, *_listed(guards, commands)])
            return answer.decode()

    def enter(self, keys: Sequence[str], *words: Word) -> int | None:
        """Runs enter.lua with its keys and its words: the job's place in line, 0: none; None where it is refused."""
        with reaching():
            place: int = self._enter(keys=keys, args=words)
            return place if place >= 0 else None

    def guarded(self, guards: Sequence[Command], commands: Sequence[Command]) -> bool:
        """Runs commands in one step if every guard returns its number; whether it did. They must bear repetition."""
        with reaching():
            answer: int = self._guarded(args=_listed(guards, commands))
            return answer == 1

    def log(self, keys: Sequence[str], offset: int, limit: int) -> list[Any]:
        """Runs log.lua on a job's hash, events and log; what it answers."""
        with reaching():
            answer: list[Any] = self._log(keys=keys, args=[offset, limit])
            # A script's answer is not parsed as that of a command.
            return [*answer[:2], *map(_rows, answer[2:])]

    def read(self, keys: Sequence[str], fields: Sequence[str]) -> list[list[Any]]:
        """Runs read.lua: of each hash the fields."""
        with reaching():
            answer: list[list[Any]] = self._read(keys=keys, args=fields) if keys else []
            return answer

    def lead(self, key: str, owner: str, milliseconds: int) -> bool:
        """Runs lead.lua."""
        with reaching():
            answer: int = self._lead(keys=[key], args=[owner, milliseconds])
            return answer == 1

    def resign(self, key: str, owner: str) -> None:
        """Runs resign.lua."""
        with reaching():
            self._resign(keys=[key], args=[owner])

    def write_tokens(self, key: str, version: int, writer: str, records: Mapping[str, bytes]) -> bool:
        """Runs tokens.lua."""
        words = [word for pair in records.items() for word in pair]
        with reaching():
            answer: int = self._tokens(keys=[key], args=[version, writer, *words])
            return answer == 1

    def append_audit(self, key: str, mark: str, batch: int, kept: int, events: Sequence[bytes]) -> None:
        """Runs audit.lua."""
        with reaching():
            self._audit(keys=[key, mark], args=[batch, kept, *events])

    def pubsub(self) -> PubSub:
        """A subscriber with its own connection."""
        subscriber: PubSub = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis-py
        return subscriber


def _rows(entries: Sequence[Any]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Rows of a stream as redis-py gives those of a command."""
    return [(row, dict(zip(words[::2], words[1::2], strict=True))) for row, words in entries]


def _listed(guards: Sequence[Command], commands: Sequence[Command]) -> list[Word]:
    """Commands as lua/run.lua takes them, after the number of guards."""
    words: list[Word] = [len(guards)]
    for command in (*guards, *commands):
        words += [len(command), *command]
    return words


def _moves() -> str:
    """The table of legal moves in Lua, in a fixed order, so that every process has the same script."""
    rows = [(state.name, sorted(to.name for to in MOVES[state])) for state in State]
    lines = (f"  {state} = {{{', '.join(f'{name} = true' for name in names)}}}," for state, names in rows)
    return "\n".join(["local MOVES = {", *lines, "}"])


def _script(name: str) -> str:
    return resources.files("podium.jobs.store").joinpath("lua", name).read_text(encoding="utf-8")
