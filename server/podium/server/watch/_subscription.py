"""What one watcher still has to be sent. Lives on the event loop; nothing here blocks or locks."""

import asyncio
from collections.abc import Iterable

from podium.api.v1.event_pb2 import JobEvent
from podium.jobs.errors import PodiumError


class Subscription:
    """A bounded queue. A watcher that falls further behind than that loses it, and reads on from the ledger.

    Args:
        after: the last sequence that the watcher has.
        most: bytes that may wait.
    """

    def __init__(self, after: int, most: int) -> None:
        self._last = after
        self._most = most
        self._waiting: list[JobEvent] = []
        self._bytes = 0
        self._behind = False
        self._error: PodiumError | None = None
        self._something = asyncio.Event()

    def offer(self, events: Iterable[JobEvent]) -> None:
        """Queues the events that the watcher has not had."""
        for event in events:
            if event.sequence > self._last and not self._behind:
                self._last = event.sequence
                self._waiting.append(event)
                self._bytes += event.ByteSize()
                self._behind = self._bytes > self._most
        if self._behind:
            self._waiting.clear()
        self._something.set()

    def end(self, error: PodiumError) -> None:
        """Ends the watch, after what is queued."""
        self._error = self._error or error
        self._something.set()

    async def take(self, seconds: float) -> list[JobEvent] | None:
        """What is queued; nothing after so many seconds of silence; None when the watcher has fallen behind.

        Raises:
            PodiumError: the watch was ended, and everything queued has been taken.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return []
        if self._behind:
            return None
        if not self._waiting and self._error is not None:
            raise self._error
        taken, self._waiting, self._bytes = self._waiting, [], 0
        if self._error is None:
            self._something.clear()
        return taken
