"""A job's checkpoints as its attempt handles them: bytes first, then the ledger, then retention."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from podium.jobs import wire
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import DataLossError, NotFoundError, StaleFenceError
from podium.jobs.job import Checkpoint, Job
from podium.jobs.store import Assignment, JobStore
from podium.worker.job_context import Saved

_LOG = logging.getLogger(__name__)


class Checkpoints:
    """Only what the ledger lists counts; bytes that it does not list are the remains of an attempt that was cut short.

    Args:
        store: the ledger.
        artifacts: the bytes.
        job: the job.
        assignment: who writes.
        versions: of the software, for the manifests.
    """

    def __init__(
        self,
        store: JobStore,
        artifacts: ArtifactStore,
        job: Job,
        assignment: Assignment,
        versions: Mapping[str, str],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._job = job
        self._assignment = assignment
        self._versions = versions
        self._spec_digest = wire.digest(job.spec)
        self.passed_over: list[str] = []
        """Which ones were found damaged, each in a sentence."""

    def commit(self, step: int, write: Callable[[Path], None], metrics: Mapping[str, float], best: bool) -> Checkpoint:
        """Puts the bytes where readers of manifests find them; `register` makes the ledger list them.

        Raises:
            OSError: the storage refused.
        """
        with self._artifacts.stage(self._job.id, self._assignment.attempt) as staging:
            write(staging.directory)
            return staging.commit(
                fence=self._assignment.fence,
                step=step,
                spec_digest=self._spec_digest,
                metrics=metrics,
                best=best,
                versions=self._versions,
                weights=_weights(staging.directory),
            )

    def register(self, checkpoint: Checkpoint) -> None:
        """Lists a committed checkpoint, and removes those that the policy no longer keeps. May be repeated.

        Raises:
            StaleFenceError: a newer attempt holds the job.
            UnavailableError: the ledger cannot be reached; repeat it.
        """
        try:
            self._store.commit_checkpoint(self._assignment, checkpoint)
        except StaleFenceError:
            # Nobody will list it any more, and only a listed one is anybody's; it is, where just the answer was lost.
            if checkpoint.id not in self._listed():
                with contextlib.suppress(OSError):  # what stays is cleared up after the job's end
                    self._artifacts.remove(self._job.id, checkpoint.id)
            raise
        listed = self._store.checkpoints(self._job.id)
        kept = {one.id for one in listed[-self._job.spec.checkpoints.keep_last :]}
        for one in listed:
            if not one.best and one.id not in kept:
                self.drop(one)

    def _listed(self) -> set[str]:
        try:
            return {one.id for one in self._store.checkpoints(self._job.id)}
        except NotFoundError:  # the job was deleted, after it had been ended by force
            return set()

    def drop(self, checkpoint: Checkpoint) -> None:
        """Takes a checkpoint off the list, then deletes its bytes."""
        self._store.forget_checkpoint(self._assignment, checkpoint.id)
        try:
            self._artifacts.remove(self._job.id, checkpoint.id)
        except OSError as error:
            # Off the list already; the next attempt's sweep tries again.
            _LOG.warning("%s stays on disk: %s", checkpoint.id, error)

    def newest(self) -> Saved | None:
        """The newest whole one; None: there is none.

        Raises:
            OSError: the storage cannot be read, or has nothing of what the ledger lists. To begin again, or earlier,
                would waste what was trained.
        """
        self.passed_over.clear()
        listed = self._store.checkpoints(self._job.id)
        found = self._first_whole(reversed(listed))
        if listed and found is None and not self._artifacts.manifests(self._job.id):
            raise OSError(f"none of {len(listed)} checkpoints is in {self._artifacts.root}; is that the right place?")
        return found

    def best(self) -> Saved | None:
        """The one marked best, if it is whole.

        Raises:
            OSError: the storage cannot be read.
        """
        return self._first_whole(one for one in self._store.checkpoints(self._job.id) if one.best)

    def any(self, checkpoint_id: str) -> Saved:
        """A checkpoint of any job.

        Raises:
            NotFoundError: no such checkpoint.
            DataLossError: it is damaged.
            OSError: the storage cannot be read.
        """
        return self._opened(self._store.checkpoint(checkpoint_id))

    def sweep(self, resume_from: Saved | None) -> None:
        """Deletes what earlier attempts of this job wrote and never listed, and what was passed over as damaged.

        A damaged one that is newer than where this attempt begins would push the attempt's own off the list.
        """
        for one in reversed(self._store.checkpoints(self._job.id)):
            if resume_from is not None and one.id == resume_from.folder.name:
                break
            self.drop(one)
        listed = {one.id for one in self._store.checkpoints(self._job.id)}
        self._artifacts.sweep_staging(self._job.id, before_attempt=self._assignment.attempt)
        for manifest in self._artifacts.manifests(self._job.id):
            if manifest.id not in listed and manifest.fence < self._assignment.fence:
                with contextlib.suppress(OSError):  # what stays is cleared up after the job's end
                    self._artifacts.remove(self._job.id, manifest.id)

    def _first_whole(self, candidates: Iterable[Checkpoint]) -> Saved | None:
        for checkpoint in candidates:
            try:
                return self._opened(checkpoint)
            except (DataLossError, NotFoundError) as error:
                self.passed_over.append(f"passing over {checkpoint.id} of step {checkpoint.step}: {error}")
                _LOG.warning("%s", self.passed_over[-1])
        return None

    def _opened(self, checkpoint: Checkpoint) -> Saved:
        manifest = self._artifacts.manifest(checkpoint.job_id, checkpoint.id)
        self._artifacts.verify(manifest)
        return Saved(step=manifest.step, folder=self._artifacts.path(manifest, manifest.files[0].name).parent)


def _weights(folder: Path) -> Mapping[str, str]:
    """What the files of a checkpoint say that its model started from."""
    config = folder / "config.json"
    told: Mapping[str, str] = json.loads(config.read_text(encoding="utf-8"))["weights"] if config.exists() else {}
    return told
