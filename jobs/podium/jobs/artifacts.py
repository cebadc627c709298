"""The bytes of checkpoints and caches, in a directory that server and workers share.

    jobs/<job>/tmp/<attempt>-<uuid>/         being written; nobody reads it
    jobs/<job>/checkpoints/<checkpoint>/     committed: files and MANIFEST.json
    jobs/<job>/scratch/                      what the job's attempts hand on to one another; gone when it is done
    jobs/<job>/history/<digest>.zip          the events of a job that has ended: podium.jobs.store.Archive
    cache/<kind>/<digest>                    what can be computed again

A checkpoint is written beside, forced to disk, and its manifest last; renaming the directory is the commit. So a reader
who finds a manifest finds everything, whenever the writer was killed. Readers trust nothing but manifests.
"""

import base64
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

from podium.jobs._manifest import MANIFEST, Manifest, check_name, read
from podium.jobs.errors import DataLossError, NotFoundError, OutOfRangeError
from podium.jobs.job import Checkpoint, CheckpointFile

__all__ = ["ArtifactStore", "Manifest", "Staging", "directory_of"]

#: How the system says that a file is not there, or is none. Whatever else it says is no word about the bytes.
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_checkpoint_id() -> str:
    return "ckpt-" + base64.b32encode(secrets.token_bytes(10)).decode().lower()


class ArtifactStore:
    """Checkpoints and caches under one directory.

    Args:
        root: a directory or its file:// URL; made when first written to.
        clock: the time that manifests carry, aware.
        new_id: makes checkpoint ids.

    Raises:
        ValueError: `root` is a URL of another kind.
    """

    def __init__(
        self,
        root: str,
        *,
        clock: Callable[[], datetime] = _utc_now,
        new_id: Callable[[], str] = _new_checkpoint_id,
    ) -> None:
        self.root = directory_of(root)
        self._clock = clock
        self._new_id = new_id

    def stage(self, job_id: str, attempt: int) -> "Staging":
        """A directory to write a checkpoint into: `with store.stage(…) as staging: …; staging.commit(…)`."""
        directory = self._job(job_id) / "tmp" / f"{attempt}-{secrets.token_hex(8)}"
        return Staging(
            directory,
            destination=self._checkpoints(job_id),
            job_id=job_id,
            attempt=attempt,
            created=self._clock(),
            checkpoint_id=self._new_id(),
        )

    def manifests(self, job_id: str) -> list[Manifest]:
        """The committed checkpoints, newest first, by fence and step; what has no valid manifest is none."""
        found = []
        try:
            directories = list(self._checkpoints(job_id).iterdir())
        except FileNotFoundError:
            return []
        for directory in directories:
            try:
                found.append(read(directory))
            except (DataLossError, OSError):
                continue
        return sorted(found, key=lambda manifest: (manifest.fence, manifest.step, manifest.created), reverse=True)

    def manifest(self, job_id: str, checkpoint_id: str) -> Manifest:
        """One checkpoint's manifest.

        Raises:
            NotFoundError: no such checkpoint (reason CHECKPOINT_NOT_FOUND).
            DataLossError: the manifest is damaged.
        """
        try:
            return read(self._checkpoints(job_id) / check_name(checkpoint_id))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise NotFoundError(
                f"there is no checkpoint {checkpoint_id!r} of {job_id}; it may have been replaced by a newer one",
                reason="CHECKPOINT_NOT_FOUND",
                metadata={"checkpoint_id": checkpoint_id},
            ) from None

    def path(self, manifest: Manifest, name: str) -> Path:
        """Where a file of a checkpoint lies. Only what the manifest names has a path.

        Raises:
            NotFoundError: the manifest does not name it (reason FILE_NOT_FOUND).
        """
        return self._checkpoints(manifest.job_id) / check_name(manifest.id) / _entry(manifest, name).name

    def verify(self, manifest: Manifest) -> None:
        """Reads every byte of a checkpoint.

        Raises:
            DataLossError: a file is missing or no longer has its size or digest; the sentence names it.
            OSError: the storage cannot be read; that says nothing of the bytes.
        """
        for file in manifest.files:
            self.verify_file(manifest, file.name)

    def verify_file(self, manifest: Manifest, name: str) -> None:
        """Reads every byte of one file.

        Raises:
            NotFoundError: the manifest does not name it.
            DataLossError: it is missing or no longer has its size or digest.
            OSError: the storage cannot be read; that says nothing of the bytes.
        """
        with self._open(manifest, name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != _entry(manifest, name).sha256:
                raise _damaged(manifest, name, "no longer has its SHA-256")

    def open_file(self, job_id: str, checkpoint_id: str, name: str, offset: int = 0) -> BufferedReader:
        """A file of a checkpoint, open for reading at `offset` bytes.

        Raises:
            NotFoundError: no such checkpoint, or the manifest names no such file.
            OutOfRangeError: `offset` is beyond the end.
            DataLossError: the file is missing or no longer has its size. The digest is not read: see `verify_file`.
            OSError: the storage cannot be read.
        """
        manifest = self.manifest(job_id, checkpoint_id)
        size = _entry(manifest, name).size
        if not 0 <= offset <= size:
            raise OutOfRangeError(f"{name} of {checkpoint_id} has {size} bytes; offset {offset} is beyond its end")
        file = self._open(manifest, name)
        file.seek(offset)
        return file

    def remove(self, job_id: str, checkpoint_id: str) -> None:
        """Deletes a checkpoint; one that is not there is deleted already.

        Raises:
            OSError: the storage refuses. Nobody finds the checkpoint any more, or all of it is still there; removing it
                again goes on.
        """
        directory = self._checkpoints(job_id) / check_name(checkpoint_id)
        # Always of this name, so that who removes it again finds what was cut short.
        aside = self._job(job_id) / "tmp" / f"0-{checkpoint_id}"
        if directory.exists():
            aside.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # somebody else removes it as well
                # In one step out of the readers' sight, so that nobody finds half of it.
                directory.rename(aside)
        _delete(aside)

    def remove_job(self, job_id: str) -> None:
        """Deletes everything of a job; of one that has nothing, it is deleted already.

        Raises:
            OSError: the storage refuses; some of it may be left.
        """
        _delete(self._job(job_id))

    def sweep_staging(self, job_id: str, *, before_attempt: int | None = None) -> int:
        """Deletes what killed attempts left behind, and returns how many directories that were.

        Args:
            job_id: the job.
            before_attempt: spares this attempt's own directories and later ones'; None spares nothing.
        """
        try:
            leftovers = list((self._job(job_id) / "tmp").iterdir())
        except FileNotFoundError:
            return 0
        swept = [
            directory for directory in leftovers if before_attempt is None or _attempt_of(directory) < before_attempt
        ]
        for directory in swept:
            shutil.rmtree(directory, ignore_errors=True)
        return len(swept)

    def cache_path(self, kind: str, digest: str) -> Path:
        """The folder for what is cached of a kind under a digest; writers rename whole files into it."""
        return self.root / "cache" / check_name(kind) / check_name(digest)

    def scratch_path(self, job_id: str) -> Path:
        """The folder for what the attempts of a job hand on to one another; writers rename whole files into it."""
        return self._job(job_id) / "scratch"

    def drop_scratch(self, job_id: str) -> None:
        """Deletes what attempts handed on, of a job that has ended."""
        shutil.rmtree(self.scratch_path(job_id), ignore_errors=True)

    def history_path(self, job_id: str, digest: str) -> Path:
        """Where the history of an ended job lies."""
        return self._job(job_id) / "history" / f"{check_name(digest)}.zip"

    @contextmanager
    def beside(self, job_id: str) -> Iterator[Path]:
        """A directory for a file that is being written and moved to its place by `settle`; gone afterwards."""
        directory = self._job(job_id) / "tmp" / f"0-{secrets.token_hex(8)}"
        directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def settle(file: Path, destination: Path) -> None:
        """Moves a finished file to its place, in one step, so that it is there whole even after a power cut."""
        _sync(file)
        destination.parent.mkdir(parents=True, exist_ok=True)
        file.replace(destination)
        _sync(destination.parent)
        _sync(destination.parent.parent)

    def _job(self, job_id: str) -> Path:
        return self.root / "jobs" / check_name(job_id)

    def _checkpoints(self, job_id: str) -> Path:
        return self._job(job_id) / "checkpoints"

    def _open(self, manifest: Manifest, name: str) -> BufferedReader:
        """A file that is as long as the manifest says, and no link to another."""
        path = self.path(manifest, name)
        try:
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise _damaged(manifest, name, f"cannot be read ({error.strerror})") from error
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != _entry(manifest, name).size:
            file.close()
            raise _damaged(manifest, name, f"has {found.st_size} bytes and not {_entry(manifest, name).size}")
        return file


class Staging:
    """A checkpoint being written. Leaving the `with` block without `commit` deletes it."""

    def __init__(
        self,
        directory: Path,
        *,
        destination: Path,
        job_id: str,
        attempt: int,
        created: datetime,
        checkpoint_id: str,
    ) -> None:
        self.directory = directory
        """Write the files here, side by side, without folders."""
        self.checkpoint_id = checkpoint_id
        self._destination = destination
        self._job_id = job_id
        self._attempt = attempt
        self._created = created

    def __enter__(self) -> "Staging":
        self.directory.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def commit(
        self,
        *,
        fence: int,
        step: int,
        spec_digest: str,
        metrics: Mapping[str, float] | None = None,
        best: bool = False,
        versions: Mapping[str, str] | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> Checkpoint:
        """Makes the checkpoint visible, whole; register it in the ledger next.

        Raises:
            ValueError: there are no files, or something that is not a plain file with a plain name.
            OSError: the storage refused; nothing is visible.
        """
        manifest = Manifest(
            id=self.checkpoint_id,
            job_id=self._job_id,
            attempt=self._attempt,
            fence=fence,
            step=step,
            files=tuple(_digested(path) for path in sorted(self.directory.iterdir())),
            metrics=dict(metrics or {}),
            best=best,
            spec_digest=spec_digest,
            versions=dict(versions or {}),
            weights=dict(weights or {}),
            created=self._created,
        )
        if not manifest.files:
            raise ValueError("a checkpoint has at least one file; write it into staging.directory first")
        (self.directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _sync(self.directory / MANIFEST)
        _sync(self.directory)
        self._destination.mkdir(parents=True, exist_ok=True)
        self.directory.rename(self._destination / self.checkpoint_id)
        _sync(self._destination)
        _sync(self._destination.parent)
        return manifest.checkpoint


def directory_of(root: str) -> Path:
    """Where an artifact store lies.

    Raises:
        ValueError: it is no directory of this machine; says what to write.
    """
    url = urlsplit(root)
    if "://" not in root:
        return Path(root).expanduser().absolute()
    if url.scheme != "file":
        raise ValueError(
            f"artifacts on {url.scheme}:// are not built yet; give a directory that server and workers share"
        )
    if url.netloc not in ("", "localhost") or not url.path.startswith("/"):
        raise ValueError(f"{root!r} is not the URL of a directory on this machine; write file:///absolute/path")
    return Path(unquote(url.path))


def _digested(path: Path) -> CheckpointFile:
    if path.is_symlink() or not path.is_file() or path.name == MANIFEST:
        raise ValueError(f"{path.name} is not a plain file; a checkpoint is files side by side")
    _sync(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return CheckpointFile(name=check_name(path.name), size=path.stat().st_size, sha256=digest)


def _entry(manifest: Manifest, name: str) -> CheckpointFile:
    for file in manifest.files:
        if file.name == name:
            return file
    names = ", ".join(file.name for file in manifest.files)
    raise NotFoundError(
        f"{manifest.id} has no file {name[:200]!r}; it has {names}",
        reason="FILE_NOT_FOUND",
        metadata={"checkpoint_id": manifest.id},
    )


def _damaged(manifest: Manifest, name: str, what: str) -> DataLossError:
    return DataLossError(
        f"{name} of {manifest.id} {what}; an earlier checkpoint can be used instead",
        metadata={"checkpoint_id": manifest.id, "file": name},
    )


def _delete(directory: Path) -> None:
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:  # somebody else deletes as well
            continue


def _attempt_of(directory: Path) -> int:
    number = directory.name.split("-")[0]
    return int(number) if number.isdecimal() else 0


def _sync(path: Path) -> None:
    """Forces a file's bytes, or a directory's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
