"""Taking ended jobs and their checkpoints away, the same for every ledger.

A job that has not ended protects the checkpoint that it starts from. Who creates such a job names the checkpoint in the
very step that makes the job, and who deletes it looks in the very step that takes it away whether anybody has: of two
that come at once, one is refused.
"""

import secrets
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from podium.jobs.errors import FailedPreconditionError, UnavailableError
from podium.jobs.job import Checkpoint, Job
from podium.jobs.store._ledger import TRIES, Ledger
from podium.jobs.store._terms import Deletion


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What one step takes away."""

    job: Job
    """The job, which has ended."""
    checkpoints: Sequence[str]
    """The ids of the checkpoints that go."""
    deletion: Deletion
    """What is left to do afterwards."""
    token: str
    """Of this call, which may have been answered without hearing it."""


class Deleting(Ledger):
    """The part of a JobStore that deletes."""

    @abstractmethod
    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """See JobStore.checkpoints."""

    @abstractmethod
    def _starters(self, checkpoint_ids: Sequence[str]) -> Mapping[str, Set[str]]:
        """By checkpoint, the jobs that were made to start from it; some of them may have ended."""

    @abstractmethod
    def _released(self, checkpoint_id: str, job_id: str) -> None:
        """Notes that a job which starts from a checkpoint has ended, where the end itself did not."""

    @abstractmethod
    def _removed(self, removal: Removal) -> bool:
        """Takes it away and puts the deletion on the list, in one step; False: it is gone, or a job starts from it."""

    def delete(self, job_id: str) -> None:
        """See JobStore.delete."""
        token = secrets.token_hex(8)
        for _ in range(TRIES):
            job = self._ended(job_id)
            listed = [checkpoint.id for checkpoint in self.checkpoints(job_id)]
            deletion = Deletion(job_id=job_id, time=self._clock())
            if self._removes(Removal(job=job, checkpoints=listed, deletion=deletion, token=token)):
                return
        raise _contended(job_id)

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """See JobStore.delete_checkpoint."""
        token = secrets.token_hex(8)
        for _ in range(TRIES):
            job = self._ended(self.checkpoint(checkpoint_id).job_id)
            deletion = Deletion(job_id=job.id, checkpoint_id=checkpoint_id, time=self._clock())
            if self._removes(Removal(job=job, checkpoints=(checkpoint_id,), deletion=deletion, token=token)):
                return
        raise _contended(checkpoint_id)

    def _ended(self, job_id: str) -> Job:
        job = self._known(job_id).job
        if not job.terminal:
            raise FailedPreconditionError(
                f"{job_id} is {job.state.name}; cancel it, or wait for its end, before you delete anything of it"
            )
        return job

    def _removes(self, removal: Removal) -> bool:
        for checkpoint_id, job_ids in self._starters(removal.checkpoints).items():
            for job_id in sorted(job_ids):
                record = self._load(job_id)
                if record is not None and not record.job.terminal:
                    raise FailedPreconditionError(
                        f"{job_id} is {record.job.state.name} and starts from {checkpoint_id}; wait for its end, or "
                        "cancel it",
                        reason="IN_USE",
                        metadata={"job_id": job_id, "checkpoint_id": checkpoint_id},
                    )
                # A version that knows no protection ended it.
                self._released(checkpoint_id, job_id)
        return self._removed(removal)


def _contended(name: str) -> UnavailableError:
    return UnavailableError(f"{name} is wanted by too many at once; try again")
