"""What one watcher still has to be sent. Lives on the event loop; nothing here blocks or locks."""

import asyncio
import itertools

from podium.jobs.errors import PodiumError
from podium.server.watch._frames import Page


class Subscription:
    """A bounded queue. A watcher that falls further behind than that loses it, and reads on from the ledger.

    Args:
        most: bytes that may wait.
    """

    def __init__(self, most: int) -> None:
        self.joined: set[str] = set()
        """The jobs whose events it is offered."""
        self._most = most
        self._waiting: list[Page] = []
        self._bytes = 0
        self._behind = False
        self._error: PodiumError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._deadline = 0.0

    def offer(self, page: Page) -> None:
        """Queues events, which the watcher has not had."""
        if self._behind:
            return
        self._waiting.append(page)
        self._bytes += page.size
        if self._bytes > self._most:
            self._behind = True
            self._waiting.clear()
        self._wake()

    def end(self, error: PodiumError) -> None:
        """Ends the watch, after what is queued."""
        self._error = self._error or error
        self._wake()

    def waiting(self) -> Page:
        """What is queued, now."""
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken[0] if len(taken) == 1 else Page(itertools.chain.from_iterable(taken))

    async def take(self, seconds: float) -> Page | None:
        """What is queued; nothing after so many seconds of silence; None when the watcher has fallen behind.

        Raises:
            PodiumError: the watch was ended, and everything queued has been taken.
        """
        if not (self._waiting or self._behind or self._error):
            await self._something(seconds)
        if self._behind:
            return None
        if not self._waiting and self._error is not None:
            raise self._error
        return self.waiting()

    def close(self) -> None:
        """Lets go of the event loop."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    async def _something(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + seconds
        # It stays when there is something sooner, and goes on where it finds that: most of them would never ring.
        if self._clock is not None and self._clock.when() > self._deadline:
            self.close()
        if self._clock is None:
            self._clock = loop.call_at(self._deadline, self._look_at_the_clock)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look_at_the_clock(self) -> None:
        loop = asyncio.get_running_loop()
        self._clock = None
        if self._waiter is not None and loop.time() < self._deadline:
            self._clock = loop.call_at(self._deadline, self._look_at_the_clock)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
