"""What a watcher knows of a job, folded from its events."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from podium.jobs.events import JobEvent, LogBatch, LogLine, MetricBatch, StateChange
from podium.jobs.job import Checkpoint, Job, Progress, QueueInfo


class Board:
    """The job as it stands, its newest numbers and its last lines.

    A watch begins with the present and then tells the past: what is older than the snapshot adds numbers and lines, and
    moves nothing back.
    """

    def __init__(self, lines: int = 5) -> None:
        self.job: Job | None = None
        self.queue: QueueInfo | None = None
        """What it waits for. That is no event: `Waiting` keeps it fresh."""
        self.numbers: dict[str, float] = {}
        """By metric, the newest value."""
        self.steps: dict[str, int] = {}
        self.lines: deque[LogLine] = deque(maxlen=lines)
        self.checkpoints = 0
        self.sequence = 0
        """The last event's."""
        self._known = 0

    def apply(self, event: JobEvent) -> None:
        """Folds one event in."""
        payload = event.payload
        if isinstance(payload, Job):
            self.job, self.queue, self._known = payload, payload.queue, payload.sequence
            return
        self.sequence = max(self.sequence, event.sequence)
        if isinstance(payload, MetricBatch):
            self._numbers(payload)
        elif isinstance(payload, LogBatch):
            self.lines.extend(payload.lines)
        elif isinstance(payload, Checkpoint):
            self.checkpoints += 1
        elif self.job is not None and event.sequence > self._known:
            self._move(self.job, event)

    def _numbers(self, batch: MetricBatch) -> None:
        for series in batch.series:
            for step, value in zip(series.steps, series.values, strict=True):
                self.numbers[series.name] = value
                self.steps[series.name] = step

    def _move(self, job: Job, event: JobEvent) -> None:
        payload = event.payload
        if isinstance(payload, Progress):
            self.job = replace(job, progress=payload, attempt=max(job.attempt, event.attempt))
        elif isinstance(payload, StateChange):
            # What it waited for before says nothing of what it waits for when it comes back.
            self.queue = None
            self.job = replace(
                job,
                state=payload.to_state,
                state_reason=payload.reason,
                terminal=payload.to_state.terminal,
                error=payload.error,
                attempt=max(job.attempt, event.attempt),
            )
