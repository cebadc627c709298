"""A job's events as plain lines, for files and pipes."""

from __future__ import annotations

from podium.client.cli._text import count, duration, evaluated_splits, percent, printable, standing
from podium.jobs.events import JobEvent, LogBatch, MetricBatch, StateChange
from podium.jobs.job import Checkpoint, Job, Progress
from podium.jobs.states import State

_EVERY_SECONDS = 10.0
_SHOWN = ("loss", "top1", "top2", "top3", "top4", "top5", "top10")


class Lines:
    """Turns events into lines; progress at most every ten seconds, and when a new phase begins."""

    def __init__(self) -> None:
        self._phases: set[str] = set()
        self._told = float("-inf")

    def of(self, event: JobEvent) -> list[str]:
        """The lines of one event; often none."""
        payload = event.payload
        if isinstance(payload, Progress):
            told = self._progress(event, payload)
        elif isinstance(payload, MetricBatch):
            told = _evaluations(payload)
        elif isinstance(payload, LogBatch):
            told = [line.text for line in payload.lines]
        else:
            told = _moves(event.job_id, payload)
        stamp = event.time.astimezone().strftime("%H:%M:%S ") if event.time else ""
        return [stamp + printable(line) for line in told]

    def _progress(self, event: JobEvent, progress: Progress) -> list[str]:
        now = event.time.timestamp() if event.time else self._told
        if progress.phase in self._phases and now - self._told < _EVERY_SECONDS:
            return []
        self._phases.add(progress.phase)
        self._told = now
        steps = f", step {progress.step} of {progress.total_steps}" if progress.total_steps else ""
        speed = f", {count(progress.images_per_second)} images/s" if progress.images_per_second else ""
        left = "" if progress.eta_seconds is None else f", {duration(progress.eta_seconds)} left"
        return [f"{progress.phase} {progress.fraction:.0%}{steps}{speed}{left}"]


def _moves(job_id: str, payload: object) -> list[str]:
    if isinstance(payload, Job):
        waits = payload.queue.wait_reason if payload.queue else ""
        reason = waits or standing(payload.id, payload.state.name, payload.state_reason)
        return [f"{payload.id} is {payload.state.name}{f' ({reason})' if reason else ''}"]
    if isinstance(payload, StateChange):
        # Whether work is saved is not said here: a cancel by force passes through CANCELLING, too.
        paused = payload.to_state is State.PAUSED
        reason = standing(job_id, payload.to_state.name, payload.reason) if paused else payload.reason
        return [f"now {payload.to_state.name}{f': {reason}' if reason else ''}"]
    if isinstance(payload, Checkpoint):
        return [f"checkpoint {payload.id} after step {payload.step}{', the best so far' if payload.best else ''}"]
    return []


def _evaluations(batch: MetricBatch) -> list[str]:
    """One line a split and step, of what was evaluated; the training loss of every step is for `podium metrics`."""
    found: dict[tuple[int, str], list[str]] = {}
    for series in batch.series:
        split, _, name = series.name.partition("/")
        if split in evaluated_splits([series.name]) and name in _SHOWN:
            for step, value in zip(series.steps, series.values, strict=True):
                shown = percent(value) + " %" if name.startswith("top") else f"{value:.4g}"
                found.setdefault((step, split), []).append(f"{name} {shown}")
    return [f"step {step} {split}: {', '.join(values)}" for (step, split), values in sorted(found.items())]
