"""A checkpoint onto disk: resumed where it broke, verified, and there all at once or not at all."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from podium.client._patience import Patience
from podium.jobs.errors import DataLossError, PodiumError
from podium.jobs.job import Checkpoint, CheckpointFile

#: Opens one stream of a file's bytes from an offset.
OpenFile = Callable[[str, int], Iterator[bytes]]
#: Called with the bytes that are there and the bytes in all.
OnBytes = Callable[[int, int], None]


def download(
    checkpoint: Checkpoint, directory: Path, open_file: OpenFile, patience: Patience, on_bytes: OnBytes
) -> Path:
    """Writes the checkpoint's files into `directory/<checkpoint id>`.

    What an earlier call left unfinished is carried on with; what is complete and verifies is kept as it is.

    Raises:
        DataLossError: the bytes do not have the digest that the checkpoint names, even when read afresh.
    """
    target = directory / _plain_name(checkpoint.id)
    if target.is_dir() and all(_verifies(target / _plain_name(file.name), file) for file in checkpoint.files):
        return target
    partial = directory / f".{checkpoint.id}.part"
    partial.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(checkpoint, open_file, patience, on_bytes)
    for file in checkpoint.files:
        transfer.fetch(file, partial / _plain_name(file.name))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


class _Transfer:
    """The files of one checkpoint, one after the other, with one patience and one count of bytes."""

    def __init__(self, checkpoint: Checkpoint, open_file: OpenFile, patience: Patience, on_bytes: OnBytes) -> None:
        self._open_file = open_file
        self._patience = patience
        self._on_bytes = on_bytes
        self._total = sum(file.size for file in checkpoint.files)
        self._done = 0

    def fetch(self, file: CheckpointFile, path: Path) -> None:
        resumed = path.exists()
        self._append(file, path)
        if resumed and not _verifies(path, file):
            # What an earlier call left is to blame first.
            path.unlink()
            self._append(file, path)
        if not _verifies(path, file):
            path.unlink()
            sentence = f"{file.name} arrived with another SHA-256 than its checkpoint names"
            raise DataLossError(f"{sentence}; fetch again, or fetch another checkpoint")
        self._done += file.size

    def _append(self, file: CheckpointFile, path: Path) -> None:
        with path.open("ab") as out:
            while out.tell() < file.size:
                try:
                    self._copy(file, out)
                    break
                except PodiumError as error:
                    self._patience.wait(error)
            out.flush()
            os.fsync(out.fileno())

    def _copy(self, file: CheckpointFile, out: BinaryIO) -> None:
        for data in self._open_file(file.name, out.tell()):
            self._patience.success()
            out.write(data)
            self._on_bytes(self._done + out.tell(), self._total)
            if out.tell() > file.size:
                return


def _verifies(path: Path, file: CheckpointFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest() == file.sha256


def _plain_name(name: str) -> str:
    # The name comes from the server and becomes a path here.
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise DataLossError(f"the server names a file {name!r}, which is no plain file name; nothing was written")
    return name
