"""A folder or a .tar of class folders: which images, of which classes, at which bytes.

A tar is never extracted: only its headers are read, and an image is read from its place in the archive. Names inside it
become class names and words in messages, never paths.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from podium.jobs.datasets._headers import members
from podium.jobs.datasets._index import (
    EXTENSIONS,
    IMAGES,
    MAX_CLASS_NAME,
    DatasetError,
    Entry,
    SplitIndex,
    is_class_name,
    shown,
)
from podium.jobs.locations import opened

_REMEDY = f"name a folder of class folders, or a .tar of them, with {IMAGES} images"
#: What other libraries read as images, too.
_OTHER_IMAGES = frozenset({".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".pgm", ".ppm", ".tif", ".tiff"})
Parts = tuple[str, ...]


def index(path: str) -> SplitIndex:
    """The images of a split, in an order that depends on names only. The class of an image is its folder's name.

    Class folders lie at the top, or all of them one folder deeper. Hidden files are left out.

    Raises:
        DatasetError: it is missing (reason DATASET_NOT_FOUND), unreadable, compressed, has no class folders, has two
            of one name, or an image twice.
    """
    if not Path(path).exists():
        raise DatasetError(f"{path} does not exist; {_REMEDY}", reason="DATASET_NOT_FOUND")
    if not (Path(path).is_dir() or Path(path).is_file()):
        # Opening a pipe would wait for ever.
        raise DatasetError(f"{path} is neither a folder nor a file; {_REMEDY}")
    folders: set[Parts] = set()
    try:
        found = _in_folder(Path(path), folders) if Path(path).is_dir() else _in_tar(path, folders)
        entries = tuple(sorted(found, key=lambda entry: (entry.class_name, entry.name)))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    if not entries:
        raise DatasetError(f"{path} holds no images in class folders; {_REMEDY}")
    _check_depths(path, entries)
    _check_folders(path, entries)
    return SplitIndex(path=path, entries=entries, empty=_empty(entries, folders))


def _in_folder(root: Path, folders: set[Parts]) -> Iterator[Entry]:
    real_root = root.resolve()
    pending: list[tuple[Path, str, Parts]] = [(root, str(real_root), ())]
    names: dict[str, str] = {}
    while pending:
        folder, real_folder, above = pending.pop()
        folders.add(above)
        with os.scandir(folder) as found:
            items = list(found)
        for item in items:
            parts = (*above, item.name)
            if item.name.startswith("."):
                continue
            real = f"{real_folder}/{item.name}"
            if item.is_symlink():
                _check_link(Path(item.path), real_root)
                real = os.path.realpath(item.path)
            if item.is_dir():
                # Below class folders, too: images there are an error and not left out. Links could lead in circles.
                if len(parts) <= 2 or not item.is_symlink():
                    pending.append((Path(item.path), real, parts))
            elif (class_name := _class_name(parts, str(root))) is not None and item.is_file():
                status, name = item.stat(), shown("/".join(parts))
                if (other := names.setdefault(real, name)) != name:
                    one, two = sorted((other, name))
                    raise DatasetError(f"{root} has one image twice, as {one} and as {two}; remove the link")
                yield Entry(
                    path=item.path,
                    offset=0,
                    size=status.st_size,
                    name=name,
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
        name = shown(str(link))
        raise DatasetError(f"{name} is a link that leaves its dataset; copy what it points to, or remove it")


def _in_tar(path: str, folders: set[Parts]) -> Iterator[Entry]:
    names = set[Parts]()
    with opened(path) as tar:
        for member, parts in members(path, tar.file, tar.size, remedy=_REMEDY):
            folder = parts if member.isdir() else parts[:-1]
            folders.update((folder[:1], folder[:2]))
            if member.isreg() and (class_name := _class_name(parts, path)) is not None:
                if parts in names:
                    # As tar -r and -u add the newer one: whoever unpacks it has that one alone.
                    raise DatasetError(f"{path} has {shown('/'.join(parts))} twice; make the tar file again")
                names.add(parts)
                yield Entry(
                    path=path,
                    offset=member.offset_data,
                    size=member.size,
                    name=shown("/".join(parts)),
                    class_name=class_name,
                    modified=tar.mark,
                )


def _class_name(parts: Parts, where: str) -> str | None:
    """The folder of an image; None for what is no image in a folder."""
    suffix = Path(parts[-1]).suffix.lower()
    if len(parts) >= 2 and suffix in _OTHER_IMAGES:
        # A part of a class would be missing without a word.
        raise DatasetError(f"{where} has {shown('/'.join(parts))}, which is no {IMAGES} file; convert it, or remove it")
    if len(parts) < 2 or suffix not in EXTENSIONS:
        return None
    name = parts[-2]
    if not is_class_name(name):
        told = ascii(name[:MAX_CLASS_NAME])
        raise DatasetError(f"{where}: rename class folder {told}; use at most {MAX_CLASS_NAME} printable characters")
    return name


def _check_depths(path: str, entries: tuple[Entry, ...]) -> None:
    first = entries[0].name
    depth = first.count("/")
    for entry in entries:
        if entry.name.count("/") != depth or depth > 2:
            raise DatasetError(
                f"{path} mixes {first} and {entry.name}; put every image into CLASS/, or every one into FOLDER/CLASS/"
            )


def _check_folders(path: str, entries: tuple[Entry, ...]) -> None:
    # Whoever names the folder that train and test lie in would train on the test split, and never learn of it.
    known: dict[str, str] = {}
    for entry in entries:
        folder = entry.name.rpartition("/")[0]
        if known.setdefault(entry.class_name, folder) != folder:
            raise DatasetError(
                f"{path} has the class {entry.class_name!r} twice, as {known[entry.class_name]} and as {folder}; "
                "name the folder of one split, or give every class a name of its own"
            )


def _empty(entries: tuple[Entry, ...], folders: set[Parts]) -> tuple[str, ...]:
    """The folders that lie where class folders lie, and hold no image."""
    depth = entries[0].name.count("/")
    return tuple(sorted({parts[-1] for parts in folders if len(parts) == depth} - {e.class_name for e in entries}))
