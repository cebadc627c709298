"""Clears up after jobs that have ended: their history moves into the artifact store, what they left behind goes."""

import errno
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
#: When a job whose history could not be archived is looked at again.
_AGAIN = timedelta(minutes=10)
#: What a storage says that refuses every job alike.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


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
        self._refused: dict[str, datetime] = {}
        """The jobs that could not be archived, each with the time of the next try."""

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
            OSError: the artifact store is full or read-only. Jobs keep their history in the ledger.
        """
        now = self._clock()
        due = self._store.ended(before=now - self._after, limit=_JOBS_A_LOOK + len(self._refused))
        return sum(self._archive(job_id, now) for job_id in due if self._refused.get(job_id, now) <= now)

    def _archive(self, job_id: str, now: datetime) -> bool:
        try:
            self._cleared_up(job_id)
        except UnavailableError:
            raise
        except (PodiumError, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            # Something is wrong with this one alone: the others are not to wait for it.
            if job_id not in self._refused:
                _LOG.error("the history of %s cannot be archived for now and stays in the ledger: %s", job_id, error)
            self._refused[job_id] = now + _AGAIN
            return False
        self._refused.pop(job_id, None)
        return True

    def _cleared_up(self, job_id: str) -> None:
        # First, as nobody looks at a job again whose history has moved.
        self._artifacts.sweep_staging(job_id)
        self._artifacts.drop_scratch(job_id)
        self._drop_unlisted(job_id)
        self._store.archive(job_id)

    def _drop_unlisted(self, job_id: str) -> None:
        """Deletes checkpoints that attempts committed which no longer held the job: the ledger lists none of them."""
        listed = {checkpoint.id for checkpoint in self._store.checkpoints(job_id)}
        for manifest in self._artifacts.manifests(job_id):
            if manifest.id not in listed:
                self._artifacts.remove(job_id, manifest.id)
