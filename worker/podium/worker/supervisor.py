"""The RQ worker of one slot. It has a process for each attempt, watches it, and never imports torch.

RQ is the way in and the watch over processes, nothing else: how a job stands is in the ledger. So what RQ's own records
say about a job is never acted on, and nothing that a record names is imported or called.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import psutil
import redis
from rq import Queue
from rq.exceptions import DeserializationError, StopRequested
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.worker import SpawnWorker

from podium.jobs.delivery import FUNCTION
from podium.jobs.errors import PodiumError, StaleFenceError
from podium.jobs.job import Job
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore
from podium.worker.memory import MemoryWatch
from podium.worker.processes import GRACE, PROCESS_DIED, describe_exit, kill
from podium.worker.spare import Spare

_LOG = logging.getLogger(__name__)


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

    Set `store`, `node` and `mark` before `warm_up` and `work`.
    """

    store: JobStore
    node: str
    mark: str
    _handling = False
    _status: int | None = None
    _unwanted_since: float | None = None
    _spare: Spare | None = None

    def execute_job(self, job: RqJob, queue: Queue) -> None:
        """Runs one delivery to its end in a process of its own."""
        self._handling, self._status = True, None
        execution = self.prepare_execution(job)
        try:
            assignment = assignment_of(job)
        except Refused as refusal:
            _LOG.error("refused: %s", refusal)
            queue.intermediate_queue.remove(job.id)
            self.handle_job_failure(job, queue, exc_string=str(refusal), execution=execution)
        else:
            self._supervise(job, queue, execution, assignment)
        self.set_state("idle")
        self._handling = False
        if self._stop_requested:
            raise StopRequested
        if self._spare is None:
            self.warm_up()

    def _supervise(self, job: RqJob, queue: Queue, execution: Execution, assignment: Assignment) -> None:
        job.timeout = -1
        self.prepare_job_execution(job, remove_from_intermediate_queue=True)
        self._assignment, self._unwanted_since, self._memory = assignment, None, MemoryWatch()
        self.fork_work_horse(job, queue)
        if self._stop_requested:
            self._pass_on_stop()
        self.monitor_work_horse(job, queue, execution)
        if self._status == 0:
            self._finalize_success(job, queue, execution, None)

    def fork_work_horse(self, job: RqJob, queue: Queue) -> None:
        """Has the spare run the attempt; another process where it has died."""
        spare, self._spare = self._spare or Spare(self.mark), None
        while not spare.give(self._assignment):
            spare = Spare(self.mark)
        self._horse_pid = spare.pid

    def warm_up(self) -> None:
        """Starts the process of the next attempt. Not while one runs, which needs the machine."""
        self._spare = Spare(self.mark)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Waits for the process, and remembers how it ended."""
        pid, self._status, usage = super().wait_for_horse()
        return pid, self._status, usage

    def handle_work_horse_killed(self, job: RqJob, retpid: int, ret_val: int, rusage: Any) -> None:
        """Gives the job of a process that died without a word back at once."""
        outcome = f"{PROCESS_DIED} {describe_exit(ret_val)} on {self.node}{self._memory.explain(ret_val)}"
        _LOG.warning("%s: %s", self._assignment.job_id, outcome)
        # Its orphans, which the slot has adopted: the next attempt is to find their devices free.
        kill(psutil.Process().children(recursive=True))
        with contextlib.suppress(StaleFenceError):
            self.store.recover(self._assignment, outcome)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM: the attempt saves its work and gives its job back, then this worker leaves; any number of times."""
        self._stop_requested = True
        if not self._handling:
            raise StopRequested
        self._pass_on_stop()

    def _pass_on_stop(self) -> None:
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def heartbeat(self, *arguments: Any, **options: Any) -> None:
        """As RQ's, but Redis being away is no reason to leave a running attempt alone."""
        with _redis_may_be_away():
            super().heartbeat(*arguments, **options)

    def maintain_heartbeats(self, job: RqJob, execution: Execution) -> None:
        """As RQ's, with the same exception; and an attempt that hangs when it should have left is ended."""
        with _redis_may_be_away():
            super().maintain_heartbeats(job, execution)
        with contextlib.suppress(PodiumError):
            self._end_the_unwanted(self.store.get(self._assignment.job_id), time.monotonic())

    def _end_the_unwanted(self, job: Job, now: float) -> None:
        """The escalation: a cancelled or replaced attempt had its grace to leave by itself."""
        if job.attempt == self._assignment.attempt and job.state in (State.STARTING, State.RUNNING):
            self._unwanted_since = None
        elif self._unwanted_since is None:
            self._unwanted_since = now
        elif now - self._unwanted_since > GRACE:
            _LOG.warning("%s, attempt %d, should have left: killed", job.id, self._assignment.attempt)
            self.kill_horse()


@contextlib.contextmanager
def _redis_may_be_away() -> Iterator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        _LOG.warning("no heartbeat to RQ: %s", error)
