"""The audit trail's writer: calls leave their events here, and batches of them reach the ledger a moment later.

So that no call waits for its event. What that can lose: a server that is killed takes along the events of its last
tenth of a second, or those since the ledger went away. One that is stopped in good order writes them first.
"""

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from podium.jobs.audit import AuditEvent
from podium.jobs.errors import UnavailableError
from podium.jobs.store.redis import RedisAudit
from podium.server import meters

_LOG = logging.getLogger(__name__)
_GATHER = 0.1
_BATCH = 1000
_TRY_AGAIN = 1.0
#: Events that wait for the ledger; while it is away there can be few, as nothing can be changed without it.
_MOST = 100_000


class AuditWriter:
    """Writes events in the background, in order. Lives on the event loop.

    Args:
        trail: the ledger's.
        most: events that may wait; what is more is lost, and the log says how many.
    """

    def __init__(self, trail: RedisAudit, *, most: int = _MOST) -> None:
        self._trail = trail
        self._most = most
        self._waiting: deque[AuditEvent] = deque()
        self._lost = 0
        self._batch = 0
        self._stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podium-audit")
        self._task: asyncio.Task[None] | None = None

    def record(self, event: AuditEvent) -> None:
        """Leaves an event to be written."""
        if len(self._waiting) >= self._most:
            self._lost += 1
            meters.AUDIT_LOST.inc()
            return
        self._waiting.append(event)
        if self._task is None:
            self._task = asyncio.create_task(self._write())

    async def stop(self, within: float) -> None:
        """Writes what waits, for at most so many seconds."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within)
        if self._waiting:
            _LOG.error("%d audit events are lost: the ledger cannot be reached", len(self._waiting))
            meters.AUDIT_LOST.inc(len(self._waiting))
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _write(self) -> None:
        while self._waiting:
            if len(self._waiting) < _BATCH:
                # Before each batch: a thread, a script and an answer for every few events cost more than their calls.
                await self._pause(_GATHER)
            events, self._batch = list(islice(self._waiting, _BATCH)), self._batch + 1
            while not await self._append(events):
                # The same batch under the same number: the ledger may have it already.
                await self._pause(_TRY_AGAIN)
            for _ in events:
                self._waiting.popleft()
        if self._lost:
            _LOG.error("%d audit events were lost: the ledger was away for too long", self._lost)
            self._lost = 0
        self._task = None

    async def _append(self, events: list[AuditEvent]) -> bool:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._trail.append, self._batch, events)
        except UnavailableError as error:
            _LOG.warning("the audit trail cannot be written: %s", error.message)
            return False
        except Exception:
            _LOG.exception("%d audit events are lost", len(events))
            meters.AUDIT_LOST.inc(len(events))
        return True

    async def _pause(self, seconds: float) -> None:
        """Waits; not at all, or a moment, once the server stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
                await asyncio.sleep(seconds / 10)
        except TimeoutError:
            return
