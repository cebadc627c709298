"""The logs of jobs: from a line on, only what was asked for, and on with what is new until the job ends."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.log_pb2 import LogLine
from podium.api.v1.log_service_pb2 import ReadLogsRequest, ReadLogsResponse
from podium.jobs.store import JobStore, LogPage, StoredLines
from podium.server.watch import Hub

#: Lines, and bytes of them, in one message at most.
MOST_LINES, MOST_BYTES = 1000, 1_000_000


@dataclass(frozen=True, kw_only=True)
class Sieve:
    """Which lines are asked for."""

    attempt: int = 0
    """Only this attempt's; 0: all."""
    min_level: int = 0
    """Only of this level or worse, by the numbers of the contract."""
    rank: int | None = None
    """Only this rank's; None: all."""

    @classmethod
    def of(cls, request: ReadLogsRequest) -> "Sieve":
        """What a request asks for."""
        rank = request.rank if request.HasField("rank") else None
        return cls(attempt=request.attempt, min_level=request.min_level, rank=rank)

    def lets(self, attempt: int, line: LogLine) -> bool:
        """Whether a line is asked for."""
        return (
            self.attempt in (0, attempt)
            and line.level >= self.min_level
            and (self.rank is None or self.rank == line.rank)
        )


class Logs:
    """The logs in the ledger.

    Args:
        store: the ledger.
        hub: tells of new lines, so that nobody who follows has to look.
        keepalive: seconds of silence after which a sign of life is sent.
    """

    def __init__(self, store: JobStore, hub: Hub, *, keepalive: float = 15.0) -> None:
        self._store = store
        self._hub = hub
        self._keepalive = keepalive

    async def read(self, request: ReadLogsRequest) -> AsyncGenerator[ReadLogsResponse, None]:
        """The lines asked for, each once and in order; at least one message, so that the caller knows where it is.

        Raises:
            NotFoundError: no such job, or it was deleted meanwhile.
            OutOfRangeError: the lines from the offset on are not kept, or it is in the future.
            UnavailableError: the server stops, or has lost its ledger.
        """
        reading = _Reading(self._store, request)
        while True:
            job = await asyncio.to_thread(self._store.get, request.job_id)
            subscription = self._hub.subscribe()
            try:
                # First: what is written from now on is heard of, and what was before is read.
                following = request.follow and not job.terminal
                joined = following and self._hub.join(job.id, job.sequence, subscription)
                async for response in reading.on():
                    yield response
                if not following:
                    return
                while joined and (frames := await subscription.take(self._keepalive)) is not None:
                    if not frames:
                        yield ReadLogsResponse(next_offset=reading.offset or 0)
                    if any(frame.log or frame.ends for frame in frames):
                        async for response in reading.on():
                            yield response
                    if any(frame.ends for frame in frames):
                        return
            finally:
                self._hub.leave(subscription)


class _Reading:
    """How far a caller has come."""

    def __init__(self, store: JobStore, request: ReadLogsRequest) -> None:
        self.offset = request.offset if request.HasField("offset") else None
        """The next line; None before the first page."""
        self._store = store
        self._job_id = request.job_id
        self._sieve = Sieve.of(request)
        self._told = False

    async def on(self) -> AsyncGenerator[ReadLogsResponse, None]:
        """Everything that is there."""
        while True:
            page = await asyncio.to_thread(self._store.log, self._job_id, offset=self.offset)
            start = page.oldest_offset if self.offset is None else self.offset
            for response in responses(page, start, self._sieve):
                self.offset, self._told = response.next_offset, True
                yield response
            if not page.rows:
                if not self._told:
                    self.offset, self._told = start, True
                    yield ReadLogsResponse(next_offset=start)
                return


def responses(page: LogPage, start: int, sieve: Sieve) -> Iterator[ReadLogsResponse]:
    """A page as messages of bounded size; where nothing of it is asked for, one that says how far it went.

    Args:
        page: of the ledger.
        start: lines before this one are left out.
        sieve: what is asked for.
    """
    response, size = ReadLogsResponse(), 0
    for place, attempt, line in _lines(page.rows):
        if place < start:
            continue
        if sieve.lets(attempt, line):
            length = line.ByteSize()
            if response.lines and (len(response.lines) == MOST_LINES or size + length > MOST_BYTES):
                yield response
                response, size = ReadLogsResponse(), 0
            line.attempt = attempt
            response.lines.append(line)
            size += length
        response.next_offset = place + 1
    if response.next_offset:
        yield response


def _lines(rows: tuple[StoredLines, ...]) -> Iterator[tuple[int, int, LogLine]]:
    """Of each line its offset, its attempt and the line."""
    for row in rows:
        event = JobEvent.FromString(row.data)
        for place, line in enumerate(event.log.lines, row.offset):
            yield place, event.attempt, line
