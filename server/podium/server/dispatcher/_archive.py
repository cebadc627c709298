"""Clears up after jobs that have ended: their history moves into the artifact store, what they left behind goes."""

import errno
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import NotFoundError, PodiumError, UnavailableError
from podium.jobs.store import JobStore

_LOG = logging.getLogger(__name__)
_JOBS_A_LOOK = 100
#: When a job whose history could not be archived is looked at again.
_AGAIN = timedelta(minutes=10)
#: What a storage says that refuses every job alike.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Archiver:
    """Archives jobs some time after their end.

    Args:
        store: the ledger.
        artifacts: the artifact store.
        after: seconds from a job's end on, in which watchers read the rest of it from the ledger.
        clock: the time, aware.
    """

    def __init__(
        self,
        store: JobStore,
        artifacts: ArtifactStore,
        *,
        after: float = 60.0,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._after = timedelta(seconds=after)
        self._clock = clock
        self._refused: dict[str, datetime] = {}
        """The jobs that could not be archived, each with the time of the next try."""

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
        except NotFoundError:  # deleted meanwhile
            self._refused.pop(job_id, None)
            return False
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
