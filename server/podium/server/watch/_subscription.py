"""What one watcher still has to be sent. Lives on the event loop; nothing here blocks or locks."""

import asyncio
from collections.abc import Sequence

from podium.jobs.errors import PodiumError
from podium.server.watch._frames import Frame


class Subscription:
    """A bounded queue. A watcher that falls further behind than that loses it, and reads on from the ledger.

    Args:
        most: bytes that may wait.
    """

    def __init__(self, most: int) -> None:
        self.joined: set[str] = set()
        """The jobs whose events it is offered."""
        self._most = most
        self._waiting: list[Frame] = []
        self._bytes = 0
        self._behind = False
        self._error: PodiumError | None = None
        self._something = asyncio.Event()

    def offer(self, frames: Sequence[Frame]) -> None:
        """Queues events, which the watcher has not had."""
        if self._behind:
            return
        self._waiting += frames
        self._bytes += sum(len(frame.data) for frame in frames)
        if self._bytes > self._most:
            self._behind = True
            self._waiting.clear()
        self._something.set()

    def end(self, error: PodiumError) -> None:
        """Ends the watch, after what is queued."""
        self._error = self._error or error
        self._something.set()

    def waiting(self) -> list[Frame]:
        """What is queued, now."""
        taken, self._waiting, self._bytes = self._waiting, [], 0
        if self._error is None and not self._behind:
            self._something.clear()
        return taken

    async def take(self, seconds: float) -> list[Frame] | None:
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
        return self.waiting()
