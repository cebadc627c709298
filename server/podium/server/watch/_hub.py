"""The one fan-out reader: a thread that listens to the ledger's bell and reads each watched job's new events once.

Who does what: the event loop alone touches subscriptions and `delivered`; the thread alone reads the ledger and keeps
each channel's cursor. They meet in `_channels`, under a lock, and in call_soon_threadsafe.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from podium.jobs.errors import InternalError, PodiumError, UnavailableError
from podium.jobs.store import Bell, JobStore, StoredEvent
from podium.server import meters
from podium.server.watch._frames import Frame, Page, framed
from podium.server.watch._subscription import Subscription

_LOG = logging.getLogger(__name__)
#: Events of a job, and jobs, that are read in one step.
_PAGE, _AT_ONCE = 100, 50
#: Bytes of a job's newest events that are kept for who joins a little late.
_KEPT = 16 << 10
#: Seconds between two readings for each job that rang, and at most: what comes meanwhile costs one of them together.
#: What follows a silence does not wait.
_BETWEEN, _LONGEST_BETWEEN = 0.005, 0.02
_STOP_WITHIN = 0.5


@dataclass(eq=False)
class _Channel:
    job_id: str
    read: int
    """The last sequence that the thread has read."""
    delivered: int
    """The last sequence that subscriptions were given."""
    subscriptions: dict[Subscription, int] = field(default_factory=dict)
    """Who watches, and the sequence that each had when it joined."""
    newest: deque[Frame] = field(default_factory=deque)
    """The last ones that were delivered."""
    newest_bytes: int = 0
    new: bool = True
    """Whether the thread has not looked at it yet: its job may have rung before."""

    def keep(self, page: Page) -> None:
        """Notes what is delivered."""
        self.delivered = page[-1].sequence
        self.newest += page
        self.newest_bytes += page.size
        while self.newest_bytes > _KEPT:
            self.newest_bytes -= len(self.newest.popleft().data)

    def missed(self, after: int) -> Page | None:
        """What was delivered after a sequence; None: that is more than is kept."""
        if self.delivered <= after:
            return Page()
        page = Page(self.newest).after(after)
        return page if len(page) == self.delivered - after else None


class Hub:
    """Brings new events to watchers.

    Args:
        store: the ledger.
        look: seconds after which every watched job is looked at, bell or no bell.
        patience: seconds without the ledger after which watches are ended with UNAVAILABLE.
        queue: bytes that may wait for one watcher.
        rang: called, on the thread, whenever jobs have new events, watched or not.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        look: float = 1.0,
        patience: float = 30.0,
        queue: int = 1 << 20,
        rang: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._rang = rang
        self._look = look
        self._patience = patience
        self._queue = queue
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._heard = time.monotonic()
        self._stopping = threading.Event()
        self._draining: PodiumError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="podium-watch", daemon=True)

    def start(self) -> None:
        """Begins to listen; call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def drain(self) -> None:
        """Ends every watch with UNAVAILABLE, now and from now on; call it on the event loop."""
        self._draining = UnavailableError("the server is stopping; watch again, from the last sequence seen")
        for channel in self._snapshot():
            for subscription in channel.subscriptions:
                subscription.end(self._draining)

    async def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def subscribe(self) -> Subscription:
        """The queue of a watcher, which joins jobs with it."""
        return Subscription(self._queue)

    def join(self, job_id: str, after: int, subscription: Subscription) -> bool:
        """Everything after `after` from now on; False when others were sent far more than that already: read on first.

        There is no await between the look at `delivered` and the joining, so nothing falls in between.

        Raises:
            UnavailableError: the server is stopping.
        """
        if self._draining is not None:
            raise self._draining
        with self._lock:
            channel = self._channels.setdefault(job_id, _Channel(job_id=job_id, read=after, delivered=after))
        missed = channel.missed(after)
        if missed is None:
            return False
        if missed:
            subscription.offer(missed)
        channel.subscriptions[subscription] = after
        subscription.joined.add(job_id)
        meters.WATCHERS.inc()
        return True

    def leave(self, subscription: Subscription) -> None:
        """The watcher is gone."""
        meters.WATCHERS.dec(len(subscription.joined))
        for job_id in subscription.joined:
            channel = self._channels[job_id]
            del channel.subscriptions[subscription]
            if not channel.subscriptions:
                with self._lock:
                    del self._channels[job_id]
        subscription.joined.clear()
        subscription.close()

    def _snapshot(self) -> list[_Channel]:
        with self._lock:
            return list(self._channels.values())

    # The thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._store.bell() as bell:
                    self._listen(bell)
            except UnavailableError as error:
                _LOG.warning("watching is interrupted: %s", error.message)
                if time.monotonic() - self._heard > self._patience:
                    self._on_loop(self._end_all, error)
            except Exception:
                _LOG.exception("the reader of events failed and starts again")
            self._stopping.wait(0.5)

    def _listen(self, bell: Bell) -> None:
        looked, rang = 0.0, frozenset[str]()
        while not self._stopping.wait(min(_BETWEEN * len(rang), _LONGEST_BETWEEN)):
            all_of_them = time.monotonic() - looked >= self._look
            rang = bell.wait(0.0 if all_of_them else min(self._look, _STOP_WITHIN))
            if rang and self._rang is not None:
                self._rang()
            channels = self._snapshot()
            if not all_of_them:
                channels = [channel for channel in channels if channel.new or channel.job_id in rang]
            for first in range(0, len(channels), _AT_ONCE):
                self._read(channels[first : first + _AT_ONCE])
            self._heard = time.monotonic()
            if all_of_them:
                looked = self._heard

    def _read(self, channels: Sequence[_Channel]) -> None:
        """All that is new of some jobs."""
        for channel in channels:
            channel.new = False
        while channels:
            news = self._store.news({channel.job_id: channel.read for channel in channels}, limit=_PAGE)
            heard = [channel for channel in channels if channel.job_id in news]
            brought: list[tuple[_Channel, Page]] = []
            try:
                channels = [channel for channel in heard if self._bring(channel, news[channel.job_id], brought)]
            finally:
                self._on_loop(self._deliver, brought)

    def _bring(self, channel: _Channel, events: Sequence[StoredEvent], brought: list[tuple[_Channel, Page]]) -> bool:
        """Adds a page; whether there may be more. Why one is empty, the ledger says where it is asked for it."""
        try:
            events = events or self._store.events(channel.job_id, after=channel.read, limit=_PAGE).events
            if events:
                page = framed(channel.job_id, events)
                channel.read = page[-1].sequence
                brought.append((channel, page))
        except UnavailableError:
            raise
        except PodiumError as error:
            self._on_loop(self._end, channel, error)
            return False
        except Exception:
            _LOG.exception("the events of %s cannot be read", channel.job_id)
            self._on_loop(self._end, channel, InternalError(f"the events of {channel.job_id} cannot be read"))
            return False
        return len(events) == _PAGE

    def _on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    # On the event loop

    def _deliver(self, brought: Sequence[tuple[_Channel, Page]]) -> None:
        now = time.time()
        for channel, page in brought:
            channel.keep(page)
            # Of a page the oldest: the worst that its watchers see.
            meters.WATCH_LAG.observe(max(now - page[0].time, 0.0))
            for subscription, after in channel.subscriptions.items():
                if new := page.after(after):
                    subscription.offer(new)

    def _end(self, channel: _Channel, error: PodiumError) -> None:
        for subscription in channel.subscriptions:
            subscription.end(error)

    def _end_all(self, error: PodiumError) -> None:
        for channel in self._snapshot():
            self._end(channel, error)
