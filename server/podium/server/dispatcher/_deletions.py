"""Clears up after what was deleted: nobody sees it any more, but its bytes are still in the artifact store."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.store import Deletion, JobStore, utc_now

_LOG = logging.getLogger(__name__)


class Deleter:
    """Deletes bytes at once, and once more later: an attempt that was ended by force may still have been writing.

    Only then the deletion is concluded, so that whoever leads next finishes what was cut short.

    Args:
        store: the ledger.
        artifacts: the artifact store.
        settle: seconds after which nobody writes any more.
        clock: the time, aware.
    """

    def __init__(
        self,
        store: JobStore,
        artifacts: ArtifactStore,
        *,
        settle: float = 600.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._settle = timedelta(seconds=settle)
        self._clock = clock
        self._swept: set[Deletion] = set()
        self._refused: set[Deletion] = set()

    def delete(self) -> int:
        """Takes one look; the number of deletions that were concluded.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        listed = self._store.deletions()
        self._swept &= set(listed)
        self._refused &= set(listed)
        return sum(self._finish(deletion) for deletion in listed)

    def _finish(self, deletion: Deletion) -> bool:
        settled = self._clock() - deletion.time >= self._settle
        if not settled and deletion in self._swept:
            return False
        try:
            self._sweep(deletion)
        except OSError as error:
            # Said once of each, and tried again at every look: the others are not to wait for it.
            if deletion not in self._refused:
                _LOG.warning("%s is deleted, and its bytes are not yet: %s", _name(deletion), error)
            self._refused.add(deletion)
            return False
        self._swept.add(deletion)
        if settled:
            self._store.conclude(deletion)
            _LOG.info("nothing is left of %s", _name(deletion))
        return settled

    def _sweep(self, deletion: Deletion) -> None:
        if deletion.checkpoint_id:
            self._artifacts.remove(deletion.job_id, deletion.checkpoint_id)
        else:
            self._artifacts.remove_job(deletion.job_id)


def _name(deletion: Deletion) -> str:
    return deletion.checkpoint_id or deletion.job_id
