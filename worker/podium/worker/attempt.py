"""One attempt, from taking its lease to the last word about it. No torch is imported before the lease is taken."""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import StaleFenceError
from podium.jobs.events import Level
from podium.jobs.job import Cause, Job, JobError
from podium.jobs.settings import Settings
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore
from podium.worker.checkpoints import Checkpoints
from podium.worker.heartbeat import Heartbeat
from podium.worker.inventory import devices
from podium.worker.job_context import JobContext, Saved, Stopped, StopReason
from podium.worker.ledger_context import LedgerContext
from podium.worker.memory import OUT_OF_MEMORY, MemoryWatch
from podium.worker.patience import insist
from podium.worker.processes import PROCESS_DIED, ranks_mark
from podium.worker.ranks import RankDied, RankFailed, Ranks
from podium.worker.stop import StopFlag
from podium.worker.trainer import trainer
from podium.worker.writer import Writer

_LOG = logging.getLogger(__name__)

DRAINED = "the machine asked for its slot back; the attempt saved its work"
#: So many processes in a row may die on the spot before the job counts as what kills them.
_MOST_DEATHS = 5


def _now() -> datetime:
    return datetime.now(UTC)


class Attempt:
    """Runs one assignment.

    Args:
        store: the ledger.
        artifacts: the bytes.
        assignment: the right to run.
        settings: for the lease.
        stop: the flag that a signal handler raises.
        threads: how many threads may decode images.
        mark: the argument that all processes of the slot carry.
        clock: the time, aware.
    """

    def __init__(
        self,
        store: JobStore,
        artifacts: ArtifactStore,
        assignment: Assignment,
        settings: Settings,
        stop: StopFlag,
        *,
        threads: int,
        mark: str = "",
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._assignment = assignment
        self._settings = settings
        self._stop = stop
        self._threads = threads
        self._mark = mark
        self._clock = clock

    def run(self) -> None:
        """Does the job as far as it may, and tells the ledger how it ended. A stale assignment leaves at once."""
        try:
            self._run()
        except StaleFenceError as error:
            _LOG.info("leaving: %s", error)

    def _run(self) -> None:
        before = insist(lambda: self._store.get(self._assignment.job_id))
        checkpoints = self._checkpoints(before)
        resume_from = insist(checkpoints.newest)
        step = resume_from.step if resume_from else 0
        job = insist(lambda: self._store.begin(self._assignment, resumed_from_step=step))
        with Heartbeat(self._store, self._assignment, self._stop, self._settings.leases.attempt):
            writer = Writer(self._store, self._assignment, self._stop)
            try:
                end = self._work(job, writer, checkpoints, resume_from)
                writer.flush()
                insist(end)
            finally:
                writer.close()

    def _work(
        self, job: Job, writer: Writer, checkpoints: Checkpoints, resume_from: Saved | None
    ) -> Callable[[], object]:
        """Trains, and returns the call that ends the attempt."""
        context = LedgerContext(
            writer=writer,
            checkpoints=checkpoints,
            artifacts=self._artifacts,
            job_id=job.id,
            stop=self._stop,
            resume_from=resume_from,
            clock=self._clock,
        )
        if job.state is State.CANCELLING:
            self._stop.request(StopReason.CANCELLED)
        if job.spec.max_duration_seconds:
            self._stop.end_in(job.spec.max_duration_seconds - _spent(job))
        if (error := _crash_loop(job)) is not None:
            return self._failing(error)
        insist(lambda: checkpoints.sweep(resume_from))
        return self._train(job, context)

    def _train(self, job: Job, context: JobContext) -> Callable[[], object]:
        memory = MemoryWatch()
        try:
            self._fit(job, context)
        except Stopped as stopped:
            return self._stopped(job, stopped.reason)
        except StaleFenceError:
            raise
        except RankDied as died:
            outcome = f"{PROCESS_DIED} {died} on {job.attempts[-1].node}{memory.explain(died.status)}"
            return lambda: self._store.recover(self._assignment, outcome)
        except Exception as error:  # whatever it is, the user is told
            described = _described(error)
            context.log(described.message, Level.ERROR)
            return self._failing(described)
        return self._finishing(State.SUCCEEDED, "trained to the end")

    def _fit(self, job: Job, context: JobContext) -> None:
        if job.spec.resources.gpus > 1:
            visible = {"CUDA_VISIBLE_DEVICES": devices(job.attempts[-1].slots)}
            Ranks(job, context, self._stop, mark=ranks_mark(self._mark), environment=os.environ | visible).run()
            return
        # Only now: importing torch takes seconds, and the lease is alive.
        trainer().run(job, context, threads=self._threads)

    def _stopped(self, job: Job, reason: StopReason) -> Callable[[], object]:
        match reason:
            case StopReason.CANCELLED:
                return self._finishing(
                    State.CANCELLED, "cancelled; the attempt saved a checkpoint where it had trained"
                )
            case StopReason.DRAINED:
                return lambda: self._store.recover(self._assignment, DRAINED)
            case StopReason.DEADLINE:
                message = f"not done after max_duration_seconds = {job.spec.max_duration_seconds}"
                remedy = "raise max_duration_seconds, or start a job from the last checkpoint"
                return self._failing(JobError(cause=Cause.DEADLINE, message=message, remedy=remedy))
            case StopReason.FENCED:
                raise StaleFenceError(f"a newer attempt holds {job.id}")

    def _failing(self, error: JobError) -> Callable[[], object]:
        return self._finishing(State.FAILED, error.message, error)

    def _finishing(self, state: State, reason: str, error: JobError | None = None) -> Callable[[], object]:
        def finish() -> None:
            self._store.finish(self._assignment, state, reason=reason, error=error)
            # No attempt comes after this one.
            self._artifacts.drop_scratch(self._assignment.job_id)

        return finish

    def _checkpoints(self, job: Job) -> Checkpoints:
        versions = {name: version(name) for name in ("podium", "torch", "torchvision", "timm")}
        return Checkpoints(self._store, self._artifacts, job, self._assignment, versions)


def _described(error: Exception) -> JobError:
    if isinstance(error, RankFailed):
        return error.error
    return trainer().describe(error)


def _spent(job: Job) -> float:
    """The seconds that earlier attempts ran."""
    return sum(
        (attempt.end_time - attempt.start_time).total_seconds()
        for attempt in job.attempts
        if attempt.start_time and attempt.end_time
    )


def _crash_loop(job: Job) -> JobError | None:
    """Why not to try again: process after process died, on machines that live, without getting any further."""
    *earlier, present = job.attempts
    deaths = 0
    for attempt in reversed(earlier):
        if not attempt.outcome.startswith(PROCESS_DIED) or attempt.resumed_from_step != present.resumed_from_step:
            break
        deaths += 1
    if deaths < _MOST_DEATHS:
        return None
    message = (
        f"{deaths} attempts in a row died after step {present.resumed_from_step}; the last one: {earlier[-1].outcome}"
    )
    if earlier[-1].outcome.endswith(OUT_OF_MEMORY):
        remedy = "halve batch_size, use a smaller backbone, or have fewer slots on the machine"
        return JobError(cause=Cause.OOM_HOST, message=message, remedy=remedy)
    return JobError(cause=Cause.NODE_LOST, message=message, remedy="look at the job's log and the worker's own")
