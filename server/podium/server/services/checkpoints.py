"""Checkpoints: list them, read their bytes, delete them."""

import hashlib
import logging
from collections.abc import Sequence
from io import BufferedReader

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import DataLossError, NotFoundError, UnavailableError
from podium.jobs.job import Checkpoint, CheckpointFile
from podium.jobs.store import JobStore

_LOG = logging.getLogger(__name__)
CHUNK = 256 << 10


class Checkpoints:
    """The checkpoints in the ledger, and their bytes in the artifact store."""

    def __init__(self, store: JobStore, artifacts: ArtifactStore) -> None:
        self._store = store
        self._artifacts = artifacts

    def list(self, job_id: str) -> Sequence[Checkpoint]:
        """The committed ones, by step."""
        return self._store.checkpoints(job_id)

    def open(self, checkpoint_id: str, name: str, offset: int) -> "Reading":
        """A file of a checkpoint, from `offset` bytes on; close it.

        Raises:
            NotFoundError: no such checkpoint (reason CHECKPOINT_NOT_FOUND) or file (FILE_NOT_FOUND).
            OutOfRangeError: `offset` is beyond the end.
            DataLossError: the file does not have its size.
            UnavailableError: the artifact store cannot be read.
        """
        checkpoint = self._store.checkpoint(checkpoint_id)
        file = next((file for file in checkpoint.files if file.name == name), None)
        if file is None:
            names = ", ".join(file.name for file in checkpoint.files)
            raise NotFoundError(f"{checkpoint_id} has no file {name[:200]!r}; it has {names}", reason="FILE_NOT_FOUND")
        try:
            data = self._artifacts.open_file(checkpoint.job_id, checkpoint_id, name, offset)
        except DataLossError:
            # Of a checkpoint that was deleted meanwhile nothing is lost: then this says that there is none.
            self._store.checkpoint(checkpoint_id)
            raise
        except OSError as error:
            raise UnavailableError(f"{name} of {checkpoint_id} cannot be read now ({error.strerror})") from error
        return Reading(checkpoint_id, file, data, whole=offset == 0)

    def delete(self, checkpoint_id: str) -> None:
        """Takes a checkpoint of an ended job off the list; its bytes go soon after.

        Raises:
            NotFoundError: no such checkpoint, or it was deleted before.
            FailedPreconditionError: its job has not ended, or another one starts from it.
        """
        self._store.delete_checkpoint(checkpoint_id)
        _LOG.info("deleted %s", checkpoint_id)


class Reading:
    """Chunks of a file; read from the start, they are checked against its digest as they pass."""

    def __init__(self, checkpoint_id: str, file: CheckpointFile, data: BufferedReader, *, whole: bool) -> None:
        self.file = file
        self._checkpoint_id = checkpoint_id
        self._data = data
        self._digest = hashlib.sha256() if whole else None

    def next(self) -> bytes:
        """The next chunk; empty at the end.

        Raises:
            DataLossError: this was the end, and the bytes did not have their digest.
        """
        chunk = self._data.read(CHUNK)
        if self._digest is None:
            return chunk
        self._digest.update(chunk)
        if not chunk and self._digest.hexdigest() != self.file.sha256:
            raise DataLossError(
                f"{self.file.name} of {self._checkpoint_id} no longer has its SHA-256; use an earlier checkpoint",
                metadata={"checkpoint_id": self._checkpoint_id, "file": self.file.name},
            )
        return chunk

    def close(self) -> None:
        """Closes the file; waits for a read in another thread."""
        self._data.close()
