"""The attempt's lease: kept alive beside the work, and the way by which the attempt hears what is asked of it."""

import logging
import threading
from types import TracebackType

from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.store import Assignment, JobStore, Wish
from podium.worker.job_context import StopReason
from podium.worker.stop import StopFlag

_LOG = logging.getLogger(__name__)
#: How long a wish may go unheard, in seconds.
_HEARING = 1.0
_REASONS = {
    Wish.CANCEL: StopReason.CANCELLED,
    Wish.PAUSE: StopReason.PAUSED,
    Wish.PREEMPT: StopReason.PREEMPTED,
}


class Heartbeat:
    """A thread that renews a lease while the block runs. A ledger out of reach is no reason to stop.

    Args:
        store: the ledger.
        assignment: whose lease.
        stop: raised when the attempt is to save its work and end, or a newer one holds the job.
        lease: the lease, in seconds; renewed three times as often, and at least once a second.
    """

    def __init__(self, store: JobStore, assignment: Assignment, stop: StopFlag, lease: float) -> None:
        self._store = store
        self._assignment = assignment
        self._stop = stop
        self._interval = min(lease / 3, _HEARING)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            try:
                if (reason := _REASONS.get(self._store.renew(self._assignment))) is not None:
                    self._stop.request(reason)
            except StaleFenceError:
                self._stop.request(StopReason.FENCED)
                return
            except UnavailableError as error:
                _LOG.warning("the lease of %s was not renewed: %s", self._assignment.job_id, error)
