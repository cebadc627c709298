"""Whose jobs and checkpoints are. What belongs to another project is not found, in the same words as what is not there.

Nor does the time tell them apart: the ledger is asked whether a job is in the caller's project, and does the same work
for a job of another one as for one that is none. What is known already is only ever a yes.
"""

from collections.abc import Sequence

from podium.jobs.store import JobStore, no_such_checkpoint, no_such_job
from podium.jobs.tokens import EVERY_PROJECT
from podium.server.access._caller import Caller

#: Jobs whose project is remembered; it never changes.
_KNOWN = 20_000


class Ownership:
    """Asks the ledger whose something is. `knows` never blocks; the rest does.

    Args:
        store: the ledger.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._projects: dict[str, str] = {}

    def knows(self, caller: Caller, job_id: str) -> bool:
        """Whether it is known already that the job is the caller's business."""
        return caller.project == EVERY_PROJECT or self._projects.get(job_id) == caller.project

    def check_jobs(self, caller: Caller, job_ids: Sequence[str]) -> None:
        """Refuses jobs of other projects.

        Raises:
            NotFoundError: one of them is none of the caller's business, or none at all.
        """
        missing = self._missing(caller, job_ids)
        if missing:
            raise no_such_job(missing[0])

    def check_checkpoint(self, caller: Caller, checkpoint_id: str) -> None:
        """Refuses a checkpoint of another project's job.

        Raises:
            NotFoundError: it is none of the caller's business, or none at all.
        """
        if caller.project == EVERY_PROJECT:
            return
        # Without a job the ledger is asked all the same: both ways take two questions.
        job_id = self._store.job_of(checkpoint_id)
        if not self._store.owned(caller.project, [job_id or checkpoint_id]):
            raise no_such_checkpoint(checkpoint_id)

    def project_of(self, job_id: str) -> str:
        """A job's project, for the record; empty: no such job."""
        return next((job.project for job in self._store.known([job_id])), "")

    def project_of_checkpoint(self, checkpoint_id: str) -> str:
        """The project of a checkpoint's job, for the record; empty: no such checkpoint."""
        job_id = self._store.job_of(checkpoint_id)
        return self.project_of(job_id) if job_id else ""

    def _missing(self, caller: Caller, job_ids: Sequence[str]) -> Sequence[str]:
        asked = [job_id for job_id in job_ids if not self.knows(caller, job_id)]
        if not asked:
            return ()
        owned = self._store.owned(caller.project, asked)
        if len(self._projects) > _KNOWN:
            self._projects = {}
        self._projects.update(dict.fromkeys(owned, caller.project))
        return [job_id for job_id in asked if job_id not in owned]
