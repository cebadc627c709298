"""Clears up after jobs that have ended: their history moves into the artifact store, what they left behind goes."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import PodiumError, UnavailableError
from podium.jobs.store import JobStore

_LOG = logging.getLogger(__name__)
_JOBS_A_LOOK = 100
_PAUSE = 60.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Archiver:
    """Archives jobs some time after their end, in a thread of its own: a storage that hangs must not stop the leader.

    Args:
        store: the ledger.
        artifacts: the artifact store.
        after: seconds from a job's end on, in which watchers read the rest of it from the ledger.
        every: seconds between two looks.
        clock: the time, aware.
    """

    def __init__(
        self,
        store: JobStore,
        artifacts: ArtifactStore,
        *,
        after: float = 60.0,
        every: float = 5.0,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._after = timedelta(seconds=after)
        self._every = every
        self._clock = clock
        self._looked = float("-inf")
        self._thread: threading.Thread | None = None
        self._refused: set[str] = set()

    def nudge(self) -> None:
        """Begins a look where one is due and the last one is over. Returns at once."""
        if time.monotonic() - self._looked < self._every or (self._thread and self._thread.is_alive()):
            return
        self._looked = time.monotonic()
        # A daemon: whatever it is at may be cut short, and is done again by whoever leads next.
        self._thread = threading.Thread(target=self._look, name="podium-archiver", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            self.archive()
        except (UnavailableError, OSError) as error:
            _LOG.warning("no history is archived for now: %s", error)
            self._looked = time.monotonic() + _PAUSE
        except Exception:
            _LOG.exception("a look at the jobs to archive failed and is tried again")

    def archive(self) -> int:
        """Takes one look; the number of jobs that were archived.

        Raises:
            UnavailableError: the ledger cannot be reached.
            OSError: the artifact store refuses. Jobs keep their history in the ledger.
        """
        limit = _JOBS_A_LOOK + len(self._refused)
        due = self._store.ended(before=self._clock() - self._after, limit=limit)
        return sum(self._archive(job_id) for job_id in due if job_id not in self._refused)

    def _archive(self, job_id: str) -> bool:
        # First, as nobody looks at a job again whose history has moved.
        self._artifacts.sweep_staging(job_id)
        self._artifacts.drop_scratch(job_id)
        try:
            self._drop_unlisted(job_id)
            self._store.archive(job_id)
        except UnavailableError:
            raise
        except (PodiumError, ValueError, PermissionError) as error:
            # Something is wrong with this one alone: the others are not to wait for it.
            _LOG.error("the history of %s cannot be archived and stays in the ledger: %s", job_id, error)
            self._refused.add(job_id)
            return False
        return True

    def _drop_unlisted(self, job_id: str) -> None:
        """Deletes checkpoints that attempts committed which no longer held the job: the ledger lists none of them."""
        listed = {checkpoint.id for checkpoint in self._store.checkpoints(job_id)}
        for manifest in self._artifacts.manifests(job_id):
            if manifest.id not in listed:
                self._artifacts.remove(job_id, manifest.id)
