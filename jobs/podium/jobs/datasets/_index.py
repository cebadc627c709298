"""What an index of images is, whatever kind of dataset it came from."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from podium.jobs.errors import PodiumError
from podium.jobs.locations import read_range

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
IMAGES = ".jpg, .jpeg, .png, .bmp or .webp"
MAX_CLASS_NAME = 200
_MAX_IMAGE_BYTES = 256 << 20


class DatasetError(PodiumError):
    """The images cannot be used; the sentence says which and what to do."""

    default_reason: ClassVar[str] = "DATASET_UNUSABLE"


class ImageError(DatasetError):
    """One image cannot be read; a job may go on without it."""

    default_reason: ClassVar[str] = "IMAGE_UNREADABLE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One image: `size` bytes from `offset` of the file `path`."""

    path: str
    """A path or a URI."""
    offset: int
    size: int
    name: str
    """Its name within the split, for messages only."""
    class_name: str
    modified: int | str
    """When the file `path` was last changed, in nanoseconds; of a URI, the file system's own mark of a change."""

    @property
    def where(self) -> str:
        """Where to find it, for messages: a file by its path, a part of an archive by its name in it."""
        is_file = self.path.rpartition("/")[2] == self.name.rpartition("/")[2]
        return shown(self.path) if is_file else f"{self.name} in {shown(self.path)}"


@dataclass(frozen=True, kw_only=True)
class SplitIndex:
    """The images of one split, sorted by class and name."""

    path: str
    entries: tuple[Entry, ...]
    empty: tuple[str, ...] = ()
    """Class folders without an image, sorted."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """Class name -> images, sorted by name."""
        return dict(sorted(Counter(entry.class_name for entry in self.entries).items()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that have an image, sorted."""
        return tuple(self.counts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over which bytes the images are (places, sizes, changes, classes; not the pixels), in hexadecimal."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(os.fsencode(entry.path))
            digest.update(f"\0{entry.name}\0{entry.offset}\0{entry.size}\0{entry.modified}\0".encode())
            digest.update(f"{entry.class_name}\n".encode())
        return digest.hexdigest()


def read_bytes(entry: Entry) -> bytes:
    """The encoded image.

    Raises:
        ImageError: it cannot be read, or is cut short.
    """
    where = entry.where
    if entry.size > _MAX_IMAGE_BYTES:
        raise ImageError(f"{where} has {entry.size} bytes; no image needs that, remove it")
    try:
        data = read_range(entry.path, entry.offset, entry.size)
    except OSError as error:
        raise ImageError(f"{where} cannot be read: {error.strerror or error}") from error
    if len(data) != entry.size:
        raise ImageError(f"{where} ends early; the file was changed or cut while in use")
    return data


def shown(name: str) -> str:
    """The name as it may stand in a sentence: neither terminal codes nor broken text."""
    return name if name.isprintable() else ascii(name)[1:-1]


def is_class_name(name: str) -> bool:
    """Whether a class may be called so: 1 to 200 characters that can be shown."""
    return 0 < len(name) <= MAX_CLASS_NAME and name.isprintable()
