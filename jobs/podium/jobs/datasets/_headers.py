"""The headers of tar files: hostile until checked, and all that is read of an archive."""

import tarfile
from collections.abc import Iterator
from typing import IO

from podium.jobs.datasets._index import DatasetError, shown

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MAX_HEADER_BYTES = 1 << 20


def members(path: str, file: IO[bytes], size: int, *, remedy: str) -> Iterator[tuple[tarfile.TarInfo, tuple[str, ...]]]:
    """The members of a tar that have bytes or are folders, with the parts of their names.

    Hidden ones and devices are left out.

    Args:
        path: its name in messages.
        file: the tar, open; its place may be moved between two members.
        size: its bytes.
        remedy: what to do when it is no tar.

    Raises:
        DatasetError: it is compressed, damaged or cut, or has a link or a file with holes, whose bytes lie elsewhere.
    """
    _refuse_compressed(path, file.read(8))
    file.seek(0)
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]  # a reader will do
            yield from _checked(path, archive, size)
            _check_end(file, archive.offset)
    except (tarfile.TarError, ValueError, RecursionError, UnicodeError) as error:
        raise DatasetError(f"{path} is not a whole tar file ({error}); {remedy}") from error


def _checked(path: str, archive: tarfile.TarFile, size: int) -> Iterator[tuple[tarfile.TarInfo, tuple[str, ...]]]:
    reached = -1
    for member in archive:
        # A header of negative size would send the reader round in circles.
        if member.size < 0 or member.offset <= reached or member.offset_data + member.size > size:
            raise DatasetError(f"{path} is damaged at byte {member.offset}; make the tar file again")
        reached = member.offset
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if any(part.startswith(".") for part in parts):
            continue
        if member.issym() or member.islnk() or member.issparse():
            # Images would be missing without a word: tar keeps the second name of a file that has two as a link.
            raise DatasetError(f"{path} keeps {shown('/'.join(parts))} as {_kept_as(member)}")
        if member.isreg() or member.isdir():
            yield member, parts


def _kept_as(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a file with holes; make the tar file without --sparse"
    return "a link; make the tar file with tar --dereference --hard-dereference"


def _check_end(file: IO[bytes], offset: int) -> None:
    # tarfile takes a damaged header for the end; images would be missing without a word.
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"no header at byte {offset}")


class _Headers:
    """A file that refuses to be read by more than a header at a time: a header may claim any length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._file.read(size)


def _refuse_compressed(path: str, start: bytes) -> None:
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise DatasetError(f"{path} is compressed with {name}; images do not shrink, give a plain .tar")
