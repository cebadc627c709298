"""The one fan-out reader: a thread that listens to the ledger's bell and reads each watched job's new events once.

Who does what: the event loop alone touches subscriptions and `joined`; the thread alone reads the ledger and keeps
each channel's cursor. They meet in `_channels`, under a lock, and in call_soon_threadsafe.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from podium.api.v1.event_pb2 import JobEvent
from podium.jobs.errors import InternalError, PodiumError, UnavailableError
from podium.jobs.store import Bell, EventPage, JobStore
from podium.server import meters
from podium.server.watch._subscription import Subscription

_LOG = logging.getLogger(__name__)
_PAGE = 200
_STOP_WITHIN = 0.5


@dataclass(eq=False)
class _Channel:
    job_id: str
    read: int
    """The last sequence that the thread has read."""
    delivered: int
    """The last sequence that subscriptions were given."""
    subscriptions: set[Subscription] = field(default_factory=set)


class Hub:
    """Brings new events to watchers.

    Args:
        store: the ledger.
        look: seconds after which every watched job is looked at, bell or no bell.
        patience: seconds without the ledger after which watches are ended with UNAVAILABLE.
        queue: bytes that may wait for one watcher.
    """

    def __init__(self, store: JobStore, *, look: float = 1.0, patience: float = 30.0, queue: int = 4 << 20) -> None:
        self._store = store
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

    def join(self, job_id: str, after: int) -> Subscription | None:
        """Everything after `after` from now on; None when others were sent more than that already: read on first.

        There is no await between the look at `delivered` and the joining, so nothing falls in between.

        Raises:
            UnavailableError: the server is stopping.
        """
        if self._draining is not None:
            raise self._draining
        with self._lock:
            channel = self._channels.setdefault(job_id, _Channel(job_id=job_id, read=after, delivered=after))
        if channel.delivered > after:
            return None
        subscription = Subscription(after, self._queue)
        channel.subscriptions.add(subscription)
        meters.WATCHERS.inc()
        return subscription

    def leave(self, job_id: str, subscription: Subscription) -> None:
        """The watcher is gone."""
        channel = self._channels.get(job_id)
        if channel is not None and subscription in channel.subscriptions:
            channel.subscriptions.discard(subscription)
            meters.WATCHERS.dec()
            if not channel.subscriptions:
                with self._lock:
                    del self._channels[job_id]

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
        looked = 0.0
        while not self._stopping.is_set():
            all_of_them = time.monotonic() - looked >= self._look
            rang = bell.wait(0.0 if all_of_them else min(self._look, _STOP_WITHIN))
            for channel in self._snapshot():
                if all_of_them or channel.job_id in rang:
                    self._read(channel)
            self._heard = time.monotonic()
            if all_of_them:
                looked = self._heard

    def _read(self, channel: _Channel) -> None:
        try:
            while (page := self._store.events(channel.job_id, after=channel.read, limit=_PAGE)).events:
                channel.read = page.events[-1].sequence
                self._on_loop(self._deliver, channel, parsed(page))
        except UnavailableError:
            raise
        except PodiumError as error:
            self._on_loop(self._end, channel, error)
        except Exception:
            _LOG.exception("the events of %s cannot be read", channel.job_id)
            self._on_loop(self._end, channel, InternalError(f"the events of {channel.job_id} cannot be read"))

    def _on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    # On the event loop

    def _deliver(self, channel: _Channel, events: list[JobEvent]) -> None:
        channel.delivered = events[-1].sequence
        # Of a page the oldest: the worst that its watchers see.
        meters.WATCH_LAG.observe(max(time.time() - events[0].time.ToNanoseconds() / 1e9, 0.0))
        for subscription in channel.subscriptions:
            subscription.offer(events)

    def _end(self, channel: _Channel, error: PodiumError) -> None:
        for subscription in channel.subscriptions:
            subscription.end(error)

    def _end_all(self, error: PodiumError) -> None:
        for channel in self._snapshot():
            self._end(channel, error)


def parsed(page: EventPage) -> list[JobEvent]:
    """The messages of a page, numbered."""
    events = []
    for stored in page.events:
        event = JobEvent.FromString(stored.data)
        event.sequence = stored.sequence
        events.append(event)
    return events
