"""Looks at the disk, which submissions of one dataset share: a sweep does not read its folders for every job."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from podium.jobs.blocking import outcome
from podium.server.admission._findings import Findings

_KEPT = 256
#: Seconds for which a look in which nothing was wrong is told again, and after which somebody looks again meanwhile:
#: otherwise all who submit would wait for it once a second.
_LASTS, _FRESH = 1.0, 0.5
#: Looks that go on at the same time; more wait. Their threads are their own: a disk may hang, and other calls may not.
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of a dataset."""

    findings: Findings
    classes: tuple[str, ...] | None


def _running() -> "Future[Look]":
    """One that nobody cancels who no longer waits for it: others do."""
    look = Future[Look]()
    look.set_running_or_notify_cancel()
    return look


@dataclass(kw_only=True)
class _Entry:
    look: Future[Look] = field(default_factory=_running)
    fresh_until: float = float("inf")
    until: float = float("inf")
    renewing: bool = False


class Looks:
    """The looks of the last second. Threads may share it.

    Args:
        clock: tells seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="podium-look")
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def recent(self, key: Hashable, look: Callable[[], Look]) -> Look | None:
        """A look that is there; never waits for one. Where it is no longer fresh, a thread looks again."""
        entry, now = self._entries.get(key), self._clock()
        if entry is None or not entry.look.done() or now >= entry.until:
            return None
        if now >= entry.fresh_until and not entry.renewing:
            entry.renewing = True
            try:
                threading.Thread(target=self._renew, args=(key, entry, look), name="podium-look", daemon=True).start()
            except RuntimeError:  # the process has no thread left; whoever comes next tries again
                entry.renewing = False
        return entry.look.result()

    def _renew(self, key: Hashable, former: _Entry, look: Callable[[], Look]) -> None:
        entry = _Entry()
        self._fill(entry, look)
        with self._lock:
            # Where this took long, somebody may have looked later than this did.
            if self._entries.get(key) is former:
                self._entries[key] = entry

    def take(self, key: Hashable, look: Callable[[], Look]) -> Look:
        """A look, or somebody else's that is under way. Within `on_loop`, nobody's thread waits for it."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and self._clock() < entry.until:
                mine = False
            else:
                self._forget()
                entry, mine = _Entry(), True
                self._entries[key] = entry
                if len(self._entries) > _KEPT:
                    self._entries.popitem(last=False)
        if mine:
            self._begin(key, entry, look)
        return outcome(entry.look)

    def faults(self, key: Hashable, check: Callable[[Findings], object]) -> Findings:
        """What a look finds fault with, which tells no classes; otherwise as `take`."""

        def look() -> Look:
            findings = Findings()
            check(findings)
            return Look(findings=findings, classes=None)

        return self.take(key, look).findings

    def _begin(self, key: Hashable, entry: _Entry, look: Callable[[], Look]) -> None:
        try:
            self._threads.submit(self._fill, entry, look)
        except RuntimeError as error:  # the process has no thread left; nobody else is to wait for this look
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
            with suppress(InvalidStateError):  # a thread that was there already has looked
                entry.look.set_exception(error)

    def _forget(self) -> None:
        # What nobody is told any more may have the names of a hundred thousand classes.
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if now >= entry.until]:
            del self._entries[key]

    def _fill(self, entry: _Entry, look: Callable[[], Look]) -> None:
        try:
            seen = look()
        except BaseException as error:
            entry.until = float("-inf")
            entry.look.set_exception(error)
        else:
            # Who mends what was wrong is not told of it again.
            now = float("-inf") if seen.findings.any else self._clock()
            entry.fresh_until, entry.until = now + _FRESH, now + _LASTS
            entry.look.set_result(seen)
