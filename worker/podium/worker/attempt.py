"""One attempt, from taking its lease to the last word about it. No torch is imported before the lease is taken."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import NotFoundError, StaleFenceError
from podium.jobs.events import Level
from podium.jobs.job import Cause, Job, JobError, Member
from podium.jobs.settings import Settings
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore
from podium.jobs.tracing import trace_id
from podium.worker import logs
from podium.worker.checkpoints import Checkpoints
from podium.worker.follower import Follower
from podium.worker.heartbeat import Heartbeat
from podium.worker.inventory import ADDRESS, devices, own_address
from podium.worker.job_context import JobContext, Saved, Stopped, StopReason
from podium.worker.journey import Journey
from podium.worker.ledger_context import LedgerContext
from podium.worker.memory import MemoryWatch
from podium.worker.patience import insist
from podium.worker.processes import death_of, node_of, ranks_mark
from podium.worker.pulse import Pulse
from podium.worker.ranks import MachineMissing, RankDied, RankFailed, Ranks
from podium.worker.rendezvous import Rendezvous
from podium.worker.stop import StopFlag
from podium.worker.trainer import trainer
from podium.worker.writer import Writer

_LOG = logging.getLogger(__name__)

DRAINED = "the machine asked for its slot back; the attempt saved its work"
PAUSED = "paused; the attempt saved a checkpoint where it had trained"
PREEMPTED = "another job took the slot; the attempt saved its work"
#: What another attempt may do better: the storage may be back, another machine may be sound.
_TRIED_AGAIN = frozenset({Cause.STORAGE, Cause.NODE_LOST})


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
        pulse: the sign for the supervisor that the attempt gets on.
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
        pulse: Pulse | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._assignment = assignment
        self._settings = settings
        self._stop = stop
        self._threads = threads
        self._mark = mark
        self._pulse = pulse or Pulse(None)
        self._clock = clock
        self._rendezvous: Rendezvous | None = None

    def run(self) -> None:
        """Does the job as far as it may, and tells the ledger how it ended. A stale assignment leaves at once."""
        try:
            self._run()
        except StaleFenceError as error:
            _LOG.info("leaving: %s", error)
        except NotFoundError as error:
            # Cancelled by force and deleted, before this process came to it.
            if error.reason != "JOB_NOT_FOUND":
                raise
            _LOG.info("leaving: %s", error)

    def _run(self) -> None:
        before = insist(lambda: self._store.get(self._assignment.job_id), waiting=self._pulse.beat)
        logs.about(trace_id=trace_id(before.trace_parent))
        if (member := self._follows(before)) is not None:
            self._follow(before, member)
        elif before.spec.resources.nodes == 1:
            self._lead(before)
        elif (rendezvous := self._met()) is not None:
            with rendezvous as self._rendezvous:
                self._lead(before)

    def _follows(self, job: Job) -> Member | None:
        """This machine's part, where the attempt is another machine's."""
        if job.attempt != self._assignment.attempt:
            return None
        return next((other for other in job.attempts[-1].others if other.node == node_of(self._mark)), None)

    def _follow(self, job: Job, member: Member) -> None:
        Follower(
            self._store,
            self._assignment,
            self._stop,
            node=member.node,
            address=own_address(self._settings.redis_url),
            mark=ranks_mark(self._mark),
            environment=_seeing(member.slots),
        ).run(job)

    def _met(self) -> Rendezvous | None:
        """Where the other machines find this one; None: nowhere, and the job has been given back."""
        address = own_address(self._settings.redis_url)
        try:
            return Rendezvous(address)
        except OSError as error:
            outcome = f"others cannot reach {node_of(self._mark)} at {address!r}: {error}; set {ADDRESS} there"
            insist(self._giving_back(outcome, Cause.INTERNAL))
            return None

    def _lead(self, before: Job) -> None:
        checkpoints = self._checkpoints(before)
        # From here on: to read a large checkpoint may take longer than the ledger waits for an attempt to begin.
        with Heartbeat(self._store, self._assignment, self._stop, self._settings.leases.attempt):
            try:
                resume_from = insist(checkpoints.newest, waiting=self._pulse.beat)
            except OSError as error:
                outcome = f"the job's checkpoints cannot be read: {error}"
                insist(lambda: self._store.recover(self._assignment, outcome, cause=Cause.STORAGE))
                return
            step = resume_from.step if resume_from else 0
            invitation = str(self._rendezvous.invitation) if self._rendezvous else ""
            job = insist(
                lambda: self._store.begin(self._assignment, resumed_from_step=step, rendezvous=invitation),
                waiting=self._pulse.beat,
            )
            self._pulse.beat()
            _LOG.info("attempt %d of %s begins, after step %d", self._assignment.attempt, job.id, step)
            journey = Journey(job, step, clock=self._clock)
            writer = Writer(self._store, self._assignment, self._stop)
            try:
                end = self._work(job, writer, checkpoints, resume_from, journey)
                insist(self._flushed(job, writer) or end, waiting=self._pulse.beat)
            finally:
                writer.close()
        journey.close()

    def _flushed(self, job: Job, writer: Writer) -> Callable[[], object] | None:
        """Writes everything that was said; returns the call that ends the attempt where that is not possible."""
        try:
            writer.flush(waiting=self._pulse.beat)
        except StaleFenceError:
            raise
        except Exception as error:  # such as a checkpoint that could not be removed
            return self._failed(_described(error), job.attempts[-1].node)
        return None

    def _work(
        self, job: Job, writer: Writer, checkpoints: Checkpoints, resume_from: Saved | None, journey: Journey
    ) -> Callable[[], object]:
        """Trains, and returns the call that ends the attempt."""
        context = LedgerContext(
            writer=writer,
            checkpoints=checkpoints,
            artifacts=self._artifacts,
            job_id=job.id,
            stop=self._stop,
            pulse=self._pulse,
            resume_from=resume_from,
            journey=journey,
            clock=self._clock,
        )
        for sentence in checkpoints.passed_over:
            context.log(sentence, Level.WARNING)
        if job.state is State.CANCELLING:
            self._stop.request(StopReason.CANCELLED)
        if job.state is State.PAUSING:
            self._stop.request(StopReason.PAUSED)
        if job.spec.max_duration_seconds:
            self._stop.end_in(job.spec.max_duration_seconds - _spent(job))
        return self._train(job, context, checkpoints)

    def _train(self, job: Job, context: JobContext, checkpoints: Checkpoints) -> Callable[[], object]:
        memory = MemoryWatch()
        try:
            insist(lambda: checkpoints.sweep(context.newest()), waiting=self._pulse.beat)
            self._fit(job, context)
        except Stopped as stopped:
            return self._stopped(job, stopped.reason)
        except StaleFenceError:
            raise
        except RankDied as died:
            cause = died.cause or memory.cause(died.status)
            return self._giving_back(death_of(str(died), died.node, cause), cause)
        except MachineMissing as missing:
            return self._giving_back(str(missing), Cause.INTERNAL)
        except Exception as error:  # whatever it is, the user is told
            described = _described(error)
            context.log(described.message, Level.ERROR)
            if described.cause in _TRIED_AGAIN:
                for line in described.traceback.splitlines():
                    context.log(line, Level.ERROR)
            return self._failed(described, error.node if isinstance(error, RankFailed) else job.attempts[-1].node)
        return self._finishing(State.SUCCEEDED, "trained to the end")

    def _fit(self, job: Job, context: JobContext) -> None:
        if job.spec.resources.slots > 1:
            Ranks(
                job,
                context,
                self._stop,
                mark=ranks_mark(self._mark),
                environment=_seeing(job.attempts[-1].slots),
                rendezvous=self._rendezvous,
                leases=self._settings.leases,
            ).run()
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
                return self._giving_back(DRAINED, Cause.PREEMPTED)
            case StopReason.PAUSED:
                return self._giving_back(PAUSED, Cause.PREEMPTED)
            case StopReason.PREEMPTED:
                return self._giving_back(PREEMPTED, Cause.PREEMPTED)
            case StopReason.DEADLINE:
                message = f"not done after max_duration_seconds = {job.spec.max_duration_seconds}"
                remedy = "raise max_duration_seconds, or start a job from the last checkpoint"
                error = JobError(cause=Cause.DEADLINE, message=message, remedy=remedy)
                return self._finishing(State.FAILED, message, error)
            case StopReason.FENCED:
                raise StaleFenceError(f"a newer attempt holds {job.id}")

    def _failed(self, error: JobError, node: str) -> Callable[[], object]:
        """Gives the job back where another attempt may do better, else ends it; `node` is where it went wrong."""
        if error.cause not in _TRIED_AGAIN:
            return self._finishing(State.FAILED, error.message, error)
        return self._giving_back(error.message, error.cause, node if error.cause is Cause.NODE_LOST else "")

    def _giving_back(self, outcome: str, cause: Cause, faulty: str = "") -> Callable[[], object]:
        return lambda: self._store.recover(self._assignment, outcome, cause=cause, faulty=faulty)

    def _finishing(self, state: State, reason: str, error: JobError | None = None) -> Callable[[], object]:
        def finish() -> None:
            self._store.finish(self._assignment, state, reason=reason, error=error)
            # No attempt comes after this one.
            self._artifacts.drop_scratch(self._assignment.job_id)

        return finish

    def _checkpoints(self, job: Job) -> Checkpoints:
        versions = {name: version(name) for name in ("podium", "torch", "torchvision", "timm")}
        return Checkpoints(self._store, self._artifacts, job, self._assignment, versions)


def _seeing(slots: Sequence[int]) -> Mapping[str, str]:
    """The environment of ranks on the slots of this machine."""
    return os.environ | {"CUDA_VISIBLE_DEVICES": devices(slots)}


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
