"""The attempt's pen: events are written beside the work, in order, in batches, and none is lost.

While the ledger cannot be reached they wait in memory, a few dozen bytes a point: an outage of hours costs megabytes. A
checkpoint is registered through the same line, so that whoever sees it sees all points before it too.
"""

import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.events import LogBatch, LogLine, MetricBatch, MetricSeries, log_batches
from podium.jobs.job import Progress
from podium.jobs.store import Assignment, JobStore
from podium.worker.job_context import StopReason
from podium.worker.stop import StopFlag

_LOG = logging.getLogger(__name__)
_INTERVAL = 0.5
#: So many points do not wait for the interval: whoever reports thousands a second is watched as closely as others.
#: But every write costs the ledger something, so they are some time apart.
_MANY, _APART = 500, 0.05
#: Points in one event, which so stays far below the 4 MiB that gRPC takes of a message, however long an outage was.
_MOST = 50_000
_LONGEST_PAUSE = 5.0
#: In characters.
_LONGEST_LINE = 10_000


@dataclass(kw_only=True)
class _Page:
    """What goes into one write: columns of points, lines, the newest progress; then perhaps an action."""

    points: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    lines: list[LogLine] = field(default_factory=list)
    progress: Progress | None = None
    action: Callable[[], object] | None = None

    def payloads(self) -> list[MetricBatch | LogBatch | Progress]:
        found: list[MetricBatch | LogBatch | Progress] = []
        found += _batches(self.points)
        found += log_batches(self.lines)
        if self.progress is not None:
            found.append(self.progress)
        return found


def _batches(points: Mapping[str, tuple[list[int], list[float]]]) -> Iterator[MetricBatch]:
    """The points, at most `_MOST` in one event."""
    batch, room = list[MetricSeries](), _MOST
    for name, (steps, values) in points.items():
        for at in range(0, len(steps), _MOST):
            part = slice(at, at + _MOST)
            series = MetricSeries(name=name, steps=tuple(steps[part]), values=tuple(values[part]))
            if len(series.steps) > room:
                yield MetricBatch(series=tuple(batch))
                batch, room = [], _MOST
            batch.append(series)
            room -= len(series.steps)
    if batch:
        yield MetricBatch(series=tuple(batch))


class Writer:
    """A thread that writes an attempt's events.

    Args:
        store: the ledger.
        assignment: who writes.
        stop: raised when a newer attempt holds the job.
    """

    def __init__(self, store: JobStore, assignment: Assignment, stop: StopFlag) -> None:
        self._store = store
        self._assignment = assignment
        self._stop = stop
        self._pages = [_Page()]
        self._changed = threading.Condition()
        self._points = 0
        self._wanted = False
        self._writing = False
        self._closed = False
        self._away = False
        self._failure: BaseException | None = None
        self._batch = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Points at a step, steps ascending."""
        with self._changed:
            self._check()
            for name, value in values.items():
                steps, column = self._pages[-1].points.setdefault(name, ([], []))
                steps.append(step)
                column.append(value)
            before, self._points = self._points, self._points + len(values)
            if before < _MANY <= self._points:
                self._changed.notify_all()

    def line(self, line: LogLine) -> None:
        """A line of the log; one that is very long is cut."""
        if (cut := len(line.text) - _LONGEST_LINE) > 0:
            line = replace(line, text=f"{line.text[:_LONGEST_LINE]} … and {cut} characters more")
        with self._changed:
            self._check()
            self._pages[-1].lines.append(line)

    def progress(self, progress: Progress) -> None:
        """How far the attempt is; only the newest is written."""
        with self._changed:
            self._pages[-1].progress = progress

    def then(self, action: Callable[[], object]) -> None:
        """Runs a write to the ledger after everything before it, and again while the ledger cannot be reached."""
        with self._changed:
            self._check()
            self._pages[-1].action = action
            self._pages.append(_Page())
            self._wanted = True
            self._changed.notify_all()

    def flush(self, *, waiting: Callable[[], object] = lambda: None) -> None:
        """Waits until everything is written, however long the ledger is away.

        Args:
            waiting: called every second while the ledger is away.

        Raises:
            StaleFenceError: a newer attempt holds the job; what was left has been dropped.
        """
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            while not self._changed.wait_for(lambda: self._failure or not (self._wanted or self._writing), timeout=1.0):
                if self._away:
                    waiting()
            self._check()

    def _check(self) -> None:
        # A training whose points nobody gets is not to go on.
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Ends the thread. What was not flushed is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._closed, timeout=_APART)
                self._changed.wait_for(
                    lambda: self._points >= _MANY or self._wanted or self._closed, timeout=_INTERVAL - _APART
                )
                if self._closed:
                    return
                pages, self._pages = self._pages, [_Page()]
                self._points, self._wanted, self._writing = 0, False, True
            try:
                self._write(pages)
            except BaseException as error:  # handed to whoever flushes
                self._fail(error)
                return
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _write(self, pages: Sequence[_Page]) -> None:
        for page in pages:
            if payloads := page.payloads():
                self._batch += 1
                self._insist(functools.partial(self._store.append, self._assignment, self._batch, payloads))
            if page.action is not None:
                self._insist(page.action)

    def _insist(self, write: Callable[[], object]) -> None:
        pause = 0.1
        while not self._closed:
            try:
                write()
            except UnavailableError as error:
                _LOG.warning("events of %s wait for the ledger: %s", self._assignment.job_id, error)
                self._away = True
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, timeout=pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._away = False
                return

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, StaleFenceError):
            self._stop.request(StopReason.FENCED)
        with self._changed:
            self._failure = error
            self._changed.notify_all()
