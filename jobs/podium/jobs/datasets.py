"""What a folder or a .tar of class folders holds: which images, of which classes, at which bytes.

A tar is never extracted: only its headers are read, and an image is read from its place in the archive. Names inside it
become class names and words in messages, never paths.
"""

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, ClassVar

from podium.jobs.errors import PodiumError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MAX_HEADER_BYTES = 1 << 20
_MAX_IMAGE_BYTES = 256 << 20
_MAX_CLASS_NAME = 200
_REMEDY = "name a folder of class folders, or a .tar of them, with .jpg, .jpeg, .png, .bmp or .webp images"


class DatasetError(PodiumError):
    """The images cannot be used; the sentence says which and what to do."""

    default_reason: ClassVar[str] = "DATASET_UNUSABLE"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image: `size` bytes from `offset` of the file `path`."""

    path: str
    offset: int
    size: int
    name: str
    """Its name within the split, for messages only."""
    class_name: str
    modified: int
    """When the file `path` was last changed, in nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class SplitIndex:
    """The images of one split, sorted by class and name."""

    path: str
    entries: tuple[Entry, ...]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Class name -> images, sorted by name."""
        return dict(sorted(Counter(entry.class_name for entry in self.entries).items()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(self.counts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over which bytes the images are (places, sizes, times; not the pixels), in hexadecimal."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(os.fsencode(entry.path))
            digest.update(f"\0{entry.name}\0{entry.offset}\0{entry.size}\0{entry.modified}\n".encode())
        return digest.hexdigest()


def scan_classes(path: str) -> dict[str, int]:
    """Class name -> images, sorted by name, of a folder of class folders or a .tar of them.

    Raises:
        DatasetError: it is missing (reason DATASET_NOT_FOUND), unreadable, compressed, or has no class folders.
    """
    return index(path).counts


def index(path: str) -> SplitIndex:
    """The images of a split, in an order that depends on names only. The class of an image is its folder's name.

    Class folders lie at the top, or all of them within one more folder. Hidden files are left out.

    Raises:
        DatasetError: as `scan_classes`.
    """
    if not Path(path).exists():
        raise DatasetError(f"{path} does not exist; {_REMEDY}", reason="DATASET_NOT_FOUND")
    if not (Path(path).is_dir() or Path(path).is_file()):
        # Opening a pipe would wait for ever.
        raise DatasetError(f"{path} is neither a folder nor a file; {_REMEDY}")
    try:
        found = _in_folder(Path(path)) if Path(path).is_dir() else _in_tar(path)
        entries = tuple(sorted(found, key=lambda entry: (entry.class_name, entry.name)))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    if not entries:
        raise DatasetError(f"{path} holds no images in class folders; {_REMEDY}")
    _check_depths(path, entries)
    return SplitIndex(path=path, entries=entries)


def read_bytes(entry: Entry) -> bytes:
    """The encoded image.

    Raises:
        DatasetError: it cannot be read, or is cut short.
    """
    where = f"{entry.name} in {_shown(entry.path)}"
    if entry.size > _MAX_IMAGE_BYTES:
        raise DatasetError(f"{where} has {entry.size} bytes; no image needs that, remove it")
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
    except OSError as error:
        raise DatasetError(f"{where} cannot be read: {error.strerror or error}") from error
    if len(data) != entry.size:
        raise DatasetError(f"{where} ends early; the file was changed or cut while in use")
    return data


def _in_folder(root: Path) -> Iterator[Entry]:
    real_root = root.resolve()
    pending: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    while pending:
        folder, above = pending.pop()
        with os.scandir(folder) as found:
            items = list(found)
        for item in items:
            parts = (*above, item.name)
            if item.name.startswith("."):
                continue
            if item.is_symlink():
                _check_link(Path(item.path), real_root)
            if item.is_dir():
                if len(parts) <= 2:
                    pending.append((Path(item.path), parts))
            elif (class_name := _class_name(parts, str(root))) is not None and item.is_file():
                status = item.stat()
                yield Entry(
                    path=item.path,
                    offset=0,
                    size=status.st_size,
                    name=_shown("/".join(parts)),
                    class_name=class_name,
                    modified=status.st_mtime_ns,
                )


def _check_link(link: Path, real_root: Path) -> None:
    # A link out of the folder would be a way around the server's allowed roots.
    try:
        inside = link.resolve().is_relative_to(real_root)
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        name = _shown(str(link))
        raise DatasetError(f"{name} is a link that leaves its dataset; copy what it points to, or remove it")


def _in_tar(path: str) -> Iterator[Entry]:
    with Path(path).open("rb") as file:
        _refuse_compressed(path, file.read(8))
        file.seek(0)
        status = os.fstat(file.fileno())
        try:
            with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]
                yield from _members(path, archive, status)
                _check_end(file, archive.offset)
        except (tarfile.TarError, ValueError, RecursionError, UnicodeError) as error:
            raise DatasetError(f"{path} is not a whole tar file ({error}); {_REMEDY}") from error


def _members(path: str, archive: tarfile.TarFile, status: os.stat_result) -> Iterator[Entry]:
    reached = -1
    for member in archive:
        # A header of negative size would send the reader round in circles.
        if member.size < 0 or member.offset <= reached or member.offset_data + member.size > status.st_size:
            raise DatasetError(f"{path} is damaged at byte {member.offset}; make the tar file again")
        reached = member.offset
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if not member.isreg() or member.issparse() or any(part.startswith(".") for part in parts):
            continue
        if (class_name := _class_name(parts, path)) is not None:
            yield Entry(
                path=path,
                offset=member.offset_data,
                size=member.size,
                name=_shown("/".join(parts)),
                class_name=class_name,
                modified=status.st_mtime_ns,
            )


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
            raise DatasetError(f"{path} is compressed with {name}; images do not shrink, give a plain .tar or a folder")


def _class_name(parts: tuple[str, ...], where: str) -> str | None:
    """The folder of an image; None for what is no image in a folder."""
    if len(parts) < 2 or Path(parts[-1]).suffix.lower() not in EXTENSIONS:
        return None
    name = parts[-2]
    if not name.isprintable() or len(name) > _MAX_CLASS_NAME:
        shown = ascii(name[:_MAX_CLASS_NAME])
        raise DatasetError(f"{where}: rename class folder {shown}; use at most {_MAX_CLASS_NAME} printable characters")
    return name


def _shown(name: str) -> str:
    """The name as it may stand in a sentence: neither terminal codes nor broken text."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _check_depths(path: str, entries: tuple[Entry, ...]) -> None:
    first = entries[0].name
    depth = first.count("/")
    for entry in entries:
        if entry.name.count("/") != depth or depth > 2:
            raise DatasetError(
                f"{path} mixes {first} and {entry.name}; put every image into CLASS/, or every one into FOLDER/CLASS/"
            )
