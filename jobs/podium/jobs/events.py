"""What happened to a job, in one order, numbered without gaps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from podium.jobs.job import Checkpoint, Job, JobError, Progress
from podium.jobs.states import State


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """A move from one state to another; `from_state` is None for a job's first event."""

    to_state: State
    from_state: State | None = None
    reason: str = ""
    error: JobError | None = None


@dataclass(frozen=True, kw_only=True)
class MetricSeries:
    """The points of one metric, steps ascending."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class MetricBatch:
    """New points, by metric."""

    series: tuple[MetricSeries, ...]

    @classmethod
    def at(cls, step: int, values: Mapping[str, float]) -> "MetricBatch":
        """One point of each metric, all at one step."""
        return cls(
            series=tuple(MetricSeries(name=name, steps=(step,), values=(value,)) for name, value in values.items())
        )


class Level(Enum):
    """How bad a log line is. The values are the numbers of podium.api.v1.LogLine.Level."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line of an attempt's log."""

    text: str
    level: Level = Level.INFO
    time: datetime | None = None
    rank: int = 0
    """Who wrote it; 0 also speaks for the whole attempt."""
    attempt: int = 0
    """The attempt that wrote it; 0 in an event, which names it itself."""


@dataclass(frozen=True, kw_only=True)
class LogBatch:
    """New log lines, oldest first."""

    lines: tuple[LogLine, ...]


#: Lines, and characters of them, that are written in one go.
_MOST_LINES, _MOST_CHARACTERS = 500, 1 << 16


def log_batches(lines: Iterable[LogLine]) -> Iterator[LogBatch]:
    """Lines in batches of such a size that no reader has to take much at once."""
    batch: list[LogLine] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == _MOST_LINES or size + len(line.text) > _MOST_CHARACTERS):
            yield LogBatch(lines=tuple(batch))
            batch, size = [], 0
        batch.append(line)
        size += len(line.text)
    if batch:
        yield LogBatch(lines=tuple(batch))


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """Nothing new; the stream lives."""


Payload: TypeAlias = StateChange | MetricBatch | LogBatch | Checkpoint | Progress | Job | Keepalive


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One event. `sequence` is 0 for what is not part of the history: a snapshot (payload Job) and a keepalive."""

    payload: Payload
    job_id: str = ""
    sequence: int = 0
    attempt: int = 0
    time: datetime | None = None


def merge_metrics(batches: Sequence[tuple[int, MetricBatch]]) -> dict[str, dict[int, float]]:
    """Each (metric, step) once, where attempts overlap the later attempt's value.

    Args:
        batches: (attempt, points) in the order they were written.

    Returns:
        By metric, then by step, the value; neither is sorted.
    """
    owner: dict[tuple[str, int], int] = {}
    merged: dict[str, dict[int, float]] = {}
    for attempt, batch in batches:
        for series in batch.series:
            values = merged.setdefault(series.name, {})
            for step, value in zip(series.steps, series.values, strict=True):
                if owner.get((series.name, step), 0) <= attempt:
                    owner[series.name, step] = attempt
                    values[step] = value
    return merged
