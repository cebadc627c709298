"""What a delivery calls: one attempt in this process. The dotted path of `run` is podium.jobs.delivery.FUNCTION."""

import os
import signal
from types import FrameType

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.settings import from_environment
from podium.jobs.store import Assignment
from podium.jobs.store.redis import RedisStore, connect
from podium.worker import logs
from podium.worker.attempt import Attempt
from podium.worker.job_context import StopReason
from podium.worker.processes import FOR_THE_SUPERVISOR, end_in
from podium.worker.pulse import Pulse, attempt_folder
from podium.worker.stop import StopFlag


def run(job_id: str, attempt: int, fence: int, *, mark: str) -> None:
    """Runs an attempt to its end, whatever that is; the ledger is told. Returns at once where the assignment is stale.

    SIGTERM asks it to save its work and give the job back.

    Args:
        job_id: the job.
        attempt: the number of the attempt.
        fence: what it may write with.
        mark: the argument that all processes of the slot carry.
    """
    logs.about(job_id=job_id, attempt=attempt)
    settings = from_environment()
    store = RedisStore(connect(settings), leases=settings.leases)
    stop, pulse = StopFlag(), Pulse(attempt_folder())

    def drain(_signal: int, _frame: FrameType | None) -> None:
        stop.request(StopReason.DRAINED)
        end_in(settings.leases.grace + FOR_THE_SUPERVISOR)  # no supervisor may be left to do it

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Attempt(
        store,
        ArtifactStore(settings.artifacts),
        Assignment(job_id=job_id, attempt=attempt, fence=fence),
        settings,
        stop,
        threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        mark=mark,
        pulse=pulse,
    ).run()
    # All is said and done; that a process on its way out is asked to leave is not to look like its death.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
