"""The RQ worker of one slot. It has a process for each attempt, watches it, and never imports torch.

RQ is the way in and the watch over processes, nothing else: how a job stands is in the ledger. So what RQ's own records
say about a job is never acted on, and nothing that a record names is imported or called.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import redis
from rq import Queue
from rq.exceptions import DeserializationError, StopRequested
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.utils import now as rq_now
from rq.worker import SpawnWorker

from podium.jobs.delivery import FUNCTION
from podium.jobs.errors import PodiumError
from podium.jobs.job import Cause, Job
from podium.jobs.store import Assignment, JobStore
from podium.worker.attempt_process import AttemptProcess, give_back
from podium.worker.noticeboard import Noticeboard
from podium.worker.processes import FOR_THE_SUPERVISOR, end_in, wait_until
from podium.worker.spare import Spare
from podium.worker.watchdog import Ending

_LOG = logging.getLogger(__name__)
#: How often RQ hears that an attempt runs, in seconds.
_RQ_HEARTBEAT = 10.0
#: How long an attempt waits for one that no longer holds its slots but has not left them yet, in seconds.
_LEAVING = 20.0
#: When an attempt has run for so long, in seconds, the next one's process is started beside it.
_SETTLED = 10.0


class Refused(Exception):
    """The delivery is not one of ours."""


class Delivery(RqJob):
    """An RQ job that can only be read: its call, its callbacks, its retries and its webhooks are dead letters."""

    success_callback = failure_callback = stopped_callback = None
    should_retry = False

    @property
    def func(self) -> Any:
        """Never looked up: the supervisor spawns its own process instead."""
        raise Refused(f"{self.func_name} is not called in this process")

    def send_webhooks(self, status: Any, *, exc_string: str | None = None) -> None:
        """Sends nothing."""


def assignment_of(job: RqJob) -> Assignment:
    """What a delivery asks for.

    Raises:
        Refused: it asks for anything but an attempt.
    """
    try:
        function, arguments = job.func_name, dict(job.kwargs)
    except (DeserializationError, TypeError, ValueError) as error:
        raise Refused(f"delivery {job.id} cannot be read: {error}") from error
    if function != FUNCTION or job.args or arguments.keys() != {"job_id", "attempt", "fence"}:
        raise Refused(f"delivery {job.id} calls {function!r}; only {FUNCTION} with its three arguments is run")
    job_id, attempt, fence = arguments["job_id"], arguments["attempt"], arguments["fence"]
    if type(job_id) is not str or type(attempt) is not int or type(fence) is not int:
        raise Refused(f"delivery {job.id} has arguments of other types than {FUNCTION}")
    return Assignment(job_id=job_id, attempt=attempt, fence=fence)


class SlotWorker(SpawnWorker):
    """Reads the one queue of one slot.

    Set `store`, `node`, `slot`, `mark`, `board` and `grace` before `warm_up` and `work`.
    """

    store: JobStore
    node: str
    slot: int
    mark: str
    board: Noticeboard
    grace: float
    _handling = False
    _asked = False
    """Whether the attempt at hand is to save its work and give its job back."""
    _attempt_process: AttemptProcess | None = None
    _spare: Spare | None = None
    _told_rq = 0.0

    def execute_job(self, job: RqJob, queue: Queue) -> None:
        """Runs one delivery to its end in a process of its own."""
        self._handling, self._asked = True, self._stop_requested
        try:
            assignment = assignment_of(job)
        except Refused as refusal:
            _LOG.error("refused: %s", refusal)
            with _redis_may_be_away():
                execution = self.prepare_execution(job)
                queue.intermediate_queue.remove(job.id)
                self.handle_job_failure(job, queue, exc_string=str(refusal), execution=execution)
        else:
            self._supervise(job, queue, assignment)
        self.set_state("idle")
        self._handling = False
        if self._stop_requested:
            raise StopRequested
        if self._spare is None:
            self.warm_up()

    def _supervise(self, job: RqJob, queue: Queue, assignment: Assignment) -> None:
        """An attempt, with RQ's records of it, where RQ can be told."""
        execution = None
        with _redis_may_be_away():
            execution = self.prepare_execution(job)
            job.timeout = -1
            self.prepare_job_execution(job, remove_from_intermediate_queue=True)
        wrong = self._run(job, execution, assignment)
        if execution is None:
            return
        self.executions.pop(execution.id, None)
        job.ended_at = rq_now()
        with _redis_may_be_away():
            if wrong:
                self.handle_job_failure(job, queue, exc_string=wrong, execution=execution)
            else:
                self._finalize_success(job, queue, execution, None)

    def _run(self, job: RqJob, execution: Execution | None, assignment: Assignment) -> str:
        """Runs an attempt to its end; returns what went wrong, or nothing."""
        job_now = self._known(assignment)
        slots = self._slots(job_now)
        if troubles := [f"slot {slot} of {self.node}: {text}" for slot in slots if (text := self.board.trouble(slot))]:
            # The delivery came before the ledger knew of it.
            give_back(self.store, assignment, Ending(cause=Cause.PREEMPTED, outcome=troubles[0]))
            return troubles[0]
        if job_now is not None and job_now.attempt == assignment.attempt:
            # Who lost the job by force, or to silence, may still be leaving: two on one device have too little memory.
            wait_until(lambda: not self.board.occupied(but=self.slot) & {*slots}, _LEAVING)
        self.board.occupy(self.slot, slots)
        try:
            process = self._started(assignment)
            self._attempt_process = AttemptProcess(process, assignment, self.store, node=self.node, grace=self.grace)
            if job_now is not None:
                self._attempt_process.see(job_now)
            if self._asked:
                self._attempt_process.ask()
            return self._attempt_process.attend(
                meanwhile=lambda seconds: self._meanwhile(job, execution, seconds),
                spared=lambda: self._spare.pid if self._spare else None,
            )
        finally:
            self._attempt_process = None
            self.board.vacate(self.slot)

    def _known(self, assignment: Assignment) -> Job | None:
        """The job, where the ledger can be reached and knows it."""
        with contextlib.suppress(PodiumError):
            return self.store.get(assignment.job_id)
        return None

    def _slots(self, job: Job | None) -> tuple[int, ...]:
        """The slots of this machine that a job's attempt holds."""
        members = job.attempts[-1].members if job is not None and job.attempts else ()
        return next((member.slots for member in members if member.node == self.node), (self.slot,))

    def _started(self, assignment: Assignment) -> Spare:
        """Has the spare run the attempt; another process where it has died."""
        spare, self._spare = self._spare or Spare(self.mark, self.board.folder), None
        while not spare.give(assignment):
            spare = Spare(self.mark, self.board.folder)
        return spare

    def _meanwhile(self, job: RqJob, execution: Execution | None, seconds: float) -> None:
        if self._spare is None and seconds >= _SETTLED and not self._stop_requested:
            self._spare = Spare(self.mark, self.board.folder, beside=True)
        if execution is not None and time.monotonic() - self._told_rq >= _RQ_HEARTBEAT:
            self._told_rq = time.monotonic()
            with _redis_may_be_away():
                self.maintain_heartbeats(job, execution)

    def warm_up(self) -> None:
        """Starts the process of the next attempt. While one runs, only once it no longer needs the whole machine."""
        self._spare = Spare(self.mark, self.board.folder)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM: the attempt saves its work and gives its job back, then this worker leaves; any number of times."""
        self._stop_requested = True
        # No agent may be left to end it, and without a ledger it would go on trying to give its job back.
        end_in(self.grace + FOR_THE_SUPERVISOR)
        if not self._handling:
            raise StopRequested
        self.request_requeue(signum, frame)

    def request_requeue(self, signum: int, frame: FrameType | None) -> None:
        """SIGUSR1: the attempt, if there is one, saves its work and gives its job back; this worker stays."""
        self._asked = True
        if self._attempt_process is not None:
            self._attempt_process.ask()

    # What RQ would do of itself

    def check_for_suspension(self, burst: bool) -> None:
        """Nothing: a machine is drained by the ledger."""

    def subscribe(self) -> None:
        """To nothing: RQ's own commands kill without a checkpoint."""

    def set_state(self, *arguments: Any, **options: Any) -> None:
        """As RQ's, but Redis being away is no reason to leave."""
        with _redis_may_be_away():
            super().set_state(*arguments, **options)

    def heartbeat(self, *arguments: Any, **options: Any) -> None:
        """As RQ's, with the same exception."""
        with _redis_may_be_away():
            super().heartbeat(*arguments, **options)

    def run_maintenance_tasks(self) -> None:
        """As RQ's, with the same exception."""
        with _redis_may_be_away():
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]  # RQ


@contextlib.contextmanager
def _redis_may_be_away() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        _LOG.warning("RQ's records are left as they are: %s", error)
