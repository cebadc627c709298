"""The JobContext of a real attempt: events to the ledger, bytes to the artifacts."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import Level, LogLine
from podium.jobs.job import Progress
from podium.worker.checkpoints import Checkpoints
from podium.worker.job_context import Saved, StopReason
from podium.worker.journey import Journey
from podium.worker.patience import insist
from podium.worker.pulse import Pulse
from podium.worker.stop import StopFlag
from podium.worker.writer import Writer


class LedgerContext:
    """See `podium.worker.job_context.JobContext`.

    Args:
        writer: where events go.
        checkpoints: the job's checkpoints.
        artifacts: where features and scratch are kept.
        job_id: whose scratch.
        stop: the flag.
        pulse: the sign for the supervisor that the attempt gets on.
        resume_from: the checkpoint that this attempt starts from.
        journey: told how far the attempt is.
        clock: the time, aware.
    """

    def __init__(
        self,
        *,
        writer: Writer,
        checkpoints: Checkpoints,
        artifacts: ArtifactStore,
        job_id: str,
        stop: StopFlag,
        pulse: Pulse,
        resume_from: Saved | None,
        journey: Journey,
        clock: Callable[[], datetime],
    ) -> None:
        self._writer = writer
        self._checkpoints = checkpoints
        self._artifacts = artifacts
        self._job_id = job_id
        self._stop = stop
        self._pulse = pulse
        self._resume_from = resume_from
        self._journey = journey
        self._clock = clock
        self._start = resume_from.step if resume_from else 0

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `JobContext`."""
        self._pulse.beat(stepped=step > self._start)
        self._journey.at(step)
        self._writer.metrics(step, metrics)

    def progress(self, progress: Progress) -> None:
        """See `JobContext`."""
        self._pulse.beat(stepped=progress.step > self._start)
        self._journey.at(progress.step, progress.phase)
        self._writer.progress(progress)

    def log(self, text: str, level: Level = Level.INFO, *, rank: int = 0) -> None:
        """See `JobContext`."""
        self._writer.line(LogLine(text=text, level=level, time=self._clock(), rank=rank))

    def should_stop(self) -> StopReason | None:
        """See `JobContext`."""
        return self._stop.reason

    def save(self, step: int, write: Callable[[Path], None], *, metrics: Mapping[str, float], best: bool) -> None:
        """See `JobContext`. The bytes are on disk when this returns; the ledger lists them after the points so far."""
        self._pulse.beat()
        checkpoint = self._checkpoints.commit(step, write, metrics, best)
        self._pulse.beat()
        self._writer.then(lambda: self._checkpoints.register(checkpoint))

    def newest(self) -> Saved | None:
        """See `JobContext`; found when the attempt began."""
        return self._resume_from

    def best(self) -> Saved | None:
        """See `JobContext`."""
        # Waiting for the ledger is no stall.
        self._writer.flush(waiting=self._pulse.beat)
        return insist(self._checkpoints.best, waiting=self._pulse.beat)

    def checkpoint(self, checkpoint_id: str) -> Saved:
        """See `JobContext`."""
        return insist(lambda: self._checkpoints.any(checkpoint_id), waiting=self._pulse.beat)

    def features(self, key: str) -> Path:
        """See `JobContext`."""
        return self._artifacts.cache_path("features", key)

    def scratch(self) -> Path:
        """See `JobContext`."""
        return self._artifacts.scratch_path(self._job_id)
