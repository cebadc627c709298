"""The history of ended jobs in the artifact store, where it costs the ledger nothing: one file a job.

    <digest>.zip
        index.json     what is in the blocks, and their SHA-256; its own is the digest, which the ledger keeps
        1, 4711, …     blocks of rows, each named after its first sequence; a row is sequence, length and bytes

So whoever has the digest can tell whether a byte is what was put there, and reads a block at a time however long the
history is. The same history has the same digest: who writes it again, after a crash or beside somebody else, does no
harm.
"""

import errno
import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from podium.api.v1.event_pb2 import JobEvent
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import DataLossError, PodiumError, UnavailableError
from podium.jobs.store._log import a_page, lines_in
from podium.jobs.store._terms import EventPage, LogPage, StoredEvent, StoredLines

#: 1 did not count lines.
_FORMATS = (1, 2)
_INDEX = "index.json"
_BLOCK_BYTES = 256 << 10
_MOST_INDEX_BYTES = 16 << 20
_ROW = struct.Struct("<QI")
#: What reading a file raises whose bytes are not ours.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError, TypeError, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class _Block:
    first: int
    last: int
    size: int
    sha256: str
    lines: int = 0
    """Lines of the log before those in it."""


@dataclass(frozen=True, kw_only=True)
class _Index:
    job_id: str
    oldest: int
    """The first sequence from which on every event is there; before it, those with metrics alone."""
    last: int
    blocks: tuple[_Block, ...]
    oldest_offset: int = 0
    """Lines of the log that were not kept."""
    lines: int | None = None
    """Lines of the log in all; None: they were not counted."""

    def to_json(self) -> bytes:
        return json.dumps({"format": _FORMATS[-1], **asdict(self)}, sort_keys=True).encode()


class Archive:
    """Histories of ended jobs.

    Args:
        artifacts: where they lie.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    def write(self, job_id: str, *, oldest: int, last: int, rows: Iterable[StoredEvent], oldest_offset: int = 0) -> str:
        """Keeps a history, and returns the digest to read it by.

        Args:
            job_id: the job, which has ended.
            oldest: the first sequence from which on every event is among the rows.
            last: the last sequence.
            rows: by sequence; before `oldest`, events with metrics or lines alone.
            oldest_offset: the lines of the log before those in the rows.

        Raises:
            ValueError: there is a gap.
            OSError: the storage refused; nothing is kept.
        """
        with self._artifacts.beside(job_id) as directory:
            file = directory / "history.zip"
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                blocks: list[_Block] = []
                lines = oldest_offset
                for block in _blocks(_without_gap(rows, oldest, last)):
                    blocks.append(_write_block(archive, block, lines))
                    lines += sum(lines_in(row.data) for row in block)
                index = _Index(
                    job_id=job_id,
                    oldest=oldest,
                    last=last,
                    blocks=tuple(blocks),
                    oldest_offset=oldest_offset,
                    lines=lines,
                ).to_json()
                archive.writestr(zipfile.ZipInfo(_INDEX), index, zipfile.ZIP_DEFLATED)
            digest = hashlib.sha256(index).hexdigest()
            self._artifacts.settle(file, self._artifacts.history_path(job_id, digest))
        return digest

    def drop(self, job_id: str, digest: str) -> None:
        """Deletes a history that no ledger refers to.

        Raises:
            OSError: the storage refused.
        """
        self._artifacts.history_path(job_id, digest).unlink(missing_ok=True)

    def page(self, job_id: str, digest: str, *, after: int, limit: int) -> EventPage:
        """Events above a sequence, in order, at most `limit`, and what is kept; none where `after` is not in it.

        Raises:
            DataLossError: the history is missing or damaged.
            UnavailableError: the artifact store cannot be read now.
        """
        found: list[StoredEvent] = []
        with self._open(job_id, digest) as archive:
            index = _read_index(archive, digest)
            for block in index.blocks if after >= index.oldest - 1 else ():
                if block.last > after and len(found) < limit:
                    found += [row for row in _read_block(archive, block) if row.sequence > after]
        return EventPage(events=tuple(found[:limit]), oldest_sequence=index.oldest, last_sequence=index.last)

    def points(self, job_id: str, digest: str, *, after: int = 0) -> Iterator[StoredEvent]:
        """The events with metrics above a sequence, those before the oldest that is kept whole among them.

        Raises:
            DataLossError: the history is missing or damaged.
            UnavailableError: the artifact store cannot be read now.
        """
        with self._open(job_id, digest) as archive:
            for block in _read_index(archive, digest).blocks:
                for row in _read_block(archive, block) if block.last > after else ():
                    if row.sequence > after and JobEvent.FromString(row.data).HasField("metrics"):
                        yield row

    def rows(self, job_id: str, digest: str, *, after: int = 0) -> Iterator[Sequence[bytes]]:
        """The bytes of all events above a sequence, those before the oldest that is kept whole among them.

        Raises:
            DataLossError: the history is missing or damaged.
            UnavailableError: the artifact store cannot be read now.
        """
        with self._open(job_id, digest) as archive:
            for block in _read_index(archive, digest).blocks:
                if block.last > after:
                    yield [row.data for row in _read_block(archive, block) if row.sequence > after]

    def log(self, job_id: str, digest: str, *, offset: int, limit: int) -> LogPage:
        """Rows of the log from the one on that has the line `offset`, at most `limit`, and what is kept.

        Raises:
            DataLossError: the history is missing or damaged.
            UnavailableError: the artifact store cannot be read now.
        """
        with self._open(job_id, digest) as archive:
            index = _read_index(archive, digest)
            if index.lines is None:
                rows = _counted(archive, index.blocks, 0)
                return a_page(rows, last_sequence=index.last, offset=offset, limit=limit)
            # Blocks that end before the line are not read.
            ends = [block.lines for block in index.blocks[1:]] + [index.lines]
            blocks = [block for block, end in zip(index.blocks, ends, strict=True) if end > offset]
            found: list[StoredLines] = []
            for first, row in _counted(archive, blocks, blocks[0].lines if blocks else 0):
                if first + lines_in(row.data) > offset:
                    found.append(StoredLines(offset=first, data=row.data))
                if len(found) == limit:
                    break
        return LogPage(
            rows=tuple(found), oldest_offset=index.oldest_offset, end_offset=index.lines, last_sequence=index.last
        )

    @contextmanager
    def _open(self, job_id: str, digest: str) -> Iterator[zipfile.ZipFile]:
        path = self._artifacts.history_path(job_id, digest)
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except (*_DAMAGE, OSError) as error:
            raise _unreadable(job_id, path, error) from error


def _unreadable(job_id: str, path: Path, error: Exception) -> PodiumError:
    # EINVAL: a place before the file's beginning, which only a damaged directory names.
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and error.errno != errno.EINVAL:
        return UnavailableError(
            f"the history of {job_id} cannot be read now ({error.strerror}); try again, and if that does not help look "
            "at the artifact store"
        )
    return DataLossError(
        f"the history of {job_id} is {'missing' if isinstance(error, FileNotFoundError) else 'damaged'}; see that the "
        f"artifact store is the one that it was written to, or restore {_below(path)} from a backup",
        reason="HISTORY_LOST",
        metadata={"job_id": job_id},
    )


def _below(path: Path) -> str:
    """The path from the store's root on: the root itself is nobody's business outside."""
    return "/".join(path.parts[-4:])


def _without_gap(rows: Iterable[StoredEvent], oldest: int, last: int) -> Iterator[StoredEvent]:
    expected = oldest
    for row in rows:
        if row.sequence >= oldest:
            if row.sequence != expected:
                raise ValueError(f"event {row.sequence} came where {expected} was to come")
            expected += 1
        yield row
    if expected != last + 1:
        raise ValueError(f"the history ends before event {expected}, and not after {last}")


def _blocks(rows: Iterable[StoredEvent]) -> Iterator[list[StoredEvent]]:
    block: list[StoredEvent] = []
    size = 0
    for row in rows:
        block.append(row)
        size += len(row.data)
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _counted(archive: zipfile.ZipFile, blocks: Iterable[_Block], lines: int) -> Iterator[tuple[int, StoredEvent]]:
    """The events with lines in blocks, each with the lines before it."""
    for block in blocks:
        for row in _read_block(archive, block):
            if count := lines_in(row.data):
                yield lines, row
                lines += count


def _write_block(archive: zipfile.ZipFile, rows: Sequence[StoredEvent], lines: int) -> _Block:
    data = b"".join(_ROW.pack(row.sequence, len(row.data)) + row.data for row in rows)
    first, last = rows[0].sequence, rows[-1].sequence
    archive.writestr(zipfile.ZipInfo(str(first)), data, zipfile.ZIP_DEFLATED)
    return _Block(first=first, last=last, size=len(data), sha256=hashlib.sha256(data).hexdigest(), lines=lines)


def _read_index(archive: zipfile.ZipFile, digest: str) -> _Index:
    values: dict[str, Any] = json.loads(_checked(archive, _INDEX, _MOST_INDEX_BYTES, digest))
    if values.pop("format") not in _FORMATS:
        raise ValueError("a format that we do not know")
    return _Index(**{**values, "blocks": tuple(_Block(**block) for block in values["blocks"])})


def _read_block(archive: zipfile.ZipFile, block: _Block) -> Iterator[StoredEvent]:
    data = _checked(archive, str(block.first), block.size, block.sha256)
    at = 0
    while at < len(data):
        sequence, length = _ROW.unpack_from(data, at)
        at += _ROW.size + length
        yield StoredEvent(sequence=sequence, data=data[at - length : at])


def _checked(archive: zipfile.ZipFile, name: str, most: int, sha256: str) -> bytes:
    """What is in a member, if it is what its digest says, and never more than `most` bytes of it."""
    with archive.open(name) as member:
        data = member.read(most + 1)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{name} no longer has its SHA-256")
    return data
