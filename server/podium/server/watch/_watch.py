"""One watch, of one job or of many: how they stand, their history from the ledger, then what is new from the hub.

A watcher that reads too slowly for the hub goes back to the ledger: it slows nobody but itself, and misses nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

from podium.jobs.job import Job
from podium.jobs.store import JobStore
from podium.server.watch._frames import Page, framed, sign_of_life, snapshot
from podium.server.watch._hub import Hub

T = TypeVar("T")
#: Histories are read by so few threads at a time, so that a thousand watches that open at once neither take a thousand
#: connections to the ledger nor keep other calls from theirs.
_READERS = 2
_SNAPSHOTS = 50


class Watches:
    """Opens watches.

    Args:
        store: the ledger.
        hub: brings what is new.
        get: a job as it stands.
        keepalive: seconds of silence after which a sign of life is sent.
        page: events read from the history at a time.
    """

    def __init__(
        self, store: JobStore, hub: Hub, get: Callable[[str], Job], *, keepalive: float = 15.0, page: int = 200
    ) -> None:
        self._store = store
        self._hub = hub
        self._get = get
        self._keepalive = keepalive
        self._page = page
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="podium-history")

    async def watch(self, after: Mapping[str, int], *, batched: bool) -> AsyncGenerator[bytes, None]:
        """A snapshot of each job, then every event of it after its sequence in order, each once; ends with the jobs.

        Args:
            after: the last sequence that the caller has of each job.
            batched: whether what comes at once may be one message.

        Yields:
            What both WatchJobResponse and WatchJobsResponse are, serialized.

        Raises:
            NotFoundError: one of the jobs is not known.
            OutOfRangeError: events after a sequence are not kept any more, or it is in the future.
            UnavailableError: the server stops, or has lost its ledger.
        """
        places = dict(after)
        watcher = _Watcher(self._hub, places, self._history)
        asked = iter(after)
        silence = sign_of_life(next(iter(after)) if len(after) == 1 else "")
        try:
            while ids := tuple(islice(asked, _SNAPSHOTS)):
                jobs = await self._read(partial(_each, self._get, ids))
                for job in jobs:
                    watcher.begin(job)
                for job in jobs:
                    yield snapshot(job)
            while places:
                page = await watcher.more(self._keepalive)
                for frame in page:
                    places[frame.job_id] = frame.sequence
                    if frame.ends:
                        del places[frame.job_id]
                for data in page.together if batched else [frame.data for frame in page]:
                    yield data
                if not page:
                    yield silence
        finally:
            watcher.leave()

    async def _history(self, job_id: str, after: int) -> tuple[Page, int]:
        """A page of events after a sequence, and the last sequence that there is."""

        def read() -> tuple[Page, int]:
            page = self._store.events(job_id, after=after, limit=self._page)
            return framed(job_id, page.events), page.last_sequence

        return await self._read(read)

    async def _read(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, read)


def _each(get: Callable[[str], Job], job_ids: Sequence[str]) -> list[Job]:
    return [get(job_id) for job_id in job_ids]


class _Watcher:
    """Where the events of one watch come from: of each job the history, until the hub can bring what is new."""

    def __init__(
        self,
        hub: Hub,
        places: dict[str, int],
        history: Callable[[str, int], Awaitable[tuple[Page, int]]],
    ) -> None:
        self._hub = hub
        self._places = places
        self._history = history
        self._subscription = hub.subscribe()
        self._behind: deque[str] = deque()

    def begin(self, job: Job) -> None:
        """Follows a job from its place on, or no longer where that is its end."""
        there = job.sequence == self._places[job.id]
        if there and job.terminal:
            del self._places[job.id]
        elif not (there and self._hub.join(job.id, job.sequence, self._subscription)):
            self._behind.append(job.id)

    async def more(self, patience: float) -> Page:
        """What comes next; nothing after so many seconds of silence."""
        while True:
            while self._behind:
                if page := await self._catch_up(self._behind.popleft()):
                    return page
            taken = await self._subscription.take(patience)
            if taken is not None:
                return taken
            self.leave()
            self._fall_behind()

    def leave(self) -> None:
        """The watcher is gone."""
        self._hub.leave(self._subscription)

    def _fall_behind(self) -> None:
        self._subscription = self._hub.subscribe()
        self._behind = deque(self._places)

    async def _catch_up(self, job_id: str) -> Page:
        """A page of one job, and what came of the others meanwhile."""
        page, last = await self._history(job_id, self._places[job_id])
        read = page[-1].sequence if page else self._places[job_id]
        ended = bool(page) and page[-1].ends
        if not ended and not (read >= last and self._hub.join(job_id, read, self._subscription)):
            self._behind.append(job_id)
        return Page((*page, *self._subscription.waiting()))
