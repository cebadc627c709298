"""What of a folder can be trained on, by its names and a look at its first few files: what a list of datasets shows.

Nothing is read whole. Whether a dataset is usable in every image, a job's admission and its worker say.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

from podium.jobs.catalogue import datasets
from podium.jobs.datasets._headers import members
from podium.jobs.datasets._index import EXTENSIONS, DatasetError
from podium.jobs.datasets._shards import LABELS
from podium.jobs.datasets._table import starts_well
from podium.jobs.locations import opened
from podium.jobs.spec import ImageManifest

_ROLES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_ROLE = re.compile(rf"(?:^|[-_.])({'|'.join(sorted(_ROLES, key=len, reverse=True))})(?=$|[-_.{{0-9])")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})\.tar")
_SHARD = re.compile(r"(\{[0-9.]+\}|[0-9]+)(?=\.tar$)")
_HEADERS = 64
#: Class folders that are looked into, and entries of each, before a folder counts as a dataset.
_CLASSES_SEEN = 3
_ENTRIES_SEEN = 200


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The names in a folder, without hidden ones and links, sorted."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    whole: bool = True
    """Whether these are all."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A dataset; the fields are those of podium.api.v1.DatasetInfo."""

    path: str
    kind: str
    splits: tuple[str, ...] = ()
    classes: int = 0
    name: str = ""


#: The names in a folder, at most so many; empty where it cannot be read.
Look = Callable[[str, int | None], Listing]


def role_of(part: str) -> str:
    """The split that a file or a folder is by its name, train, val or test; empty: none.

    >>> role_of("pets-train-{000..146}.tar"), role_of("valid.csv"), role_of("training.csv")
    ('train', 'val', '')
    """
    found = _ROLE.search(part)
    return _ROLES[found[1]] if found else ""


def recognise(path: str, listing: Listing, look: Look) -> tuple[list[Found], tuple[str, ...]]:
    """The datasets that a folder holds, and those of its folders that are none of them.

    Args:
        path: the folder.
        listing: what is in it.
        look: lists other folders.
    """
    known = list(_of_torchvision(path, listing, look))
    left = set(listing.folders) - {card.partition("/")[0] for _, card in known}
    found = [one for one, _ in known]
    parts = {name: count for name in left & _ROLES.keys() if (count := _classes(f"{path}/{name}", look)) is not None}
    if train := [name for name in parts if role_of(name) == "train"]:
        found.append(Found(path=path, kind="image_folder", splits=_in_order(parts), classes=parts[train[0]]))
        left -= parts.keys()
    elif (count := _classes(path, look, listing)) is not None:
        found.append(Found(path=path, kind="image_folder", classes=count))
        left = set()
    found += _of_tars(path, [name for name in listing.files if name.endswith(".tar")])
    tables = [name for name in listing.files if PurePath(name).suffix in (".csv", ".parquet")]
    found += _joined(path, "image_manifest", [name for name in tables if _is_table(f"{path}/{name}")])
    return found, tuple(sorted(left))


def _of_torchvision(path: str, listing: Listing, look: Look) -> Iterator[tuple[Found, str]]:
    for card in datasets():
        first, _, rest = card.kept_in.partition("/")
        if first in listing.files or (
            first in listing.folders and (not rest or rest in look(f"{path}/{first}", _ENTRIES_SEEN).folders)
        ):
            splits = ("train",) if card.test is None else ("train", "test")
            classes = len(card.classes)
            yield (
                Found(path=path, kind="torchvision_dataset", splits=splits, classes=classes, name=card.name),
                card.kept_in,
            )


def _classes(path: str, look: Look, listing: Listing | None = None) -> int | None:
    """How many class folders there are, 0 where they are too many to count; None: it is no folder of class folders."""
    listing = listing or look(path, None)
    if len(listing.folders) < 2:
        return None
    for name in listing.folders[:_CLASSES_SEEN]:
        inside = look(f"{path}/{name}", _ENTRIES_SEEN).files
        if not any(PurePath(file).suffix.lower() in EXTENSIONS for file in inside):
            return None
    return len(listing.folders) if listing.whole else 0


def _of_tars(path: str, names: Sequence[str]) -> Iterator[Found]:
    alone, shards = [], []
    for pattern, first in _runs(names):
        kind = _kind_of_tar(f"{path}/{first}")
        if kind == "web_dataset":
            shards.append(pattern)
        elif kind == "image_folder" and pattern == first:
            alone.append(first)
    yield from _joined(path, "image_folder", alone)
    yield from _joined(path, "web_dataset", shards)


def _runs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Numbers that follow one another as one pattern with braces, each with its first name."""
    numbers: dict[tuple[str, int], list[int]] = defaultdict(list)
    for name in names:
        numbered = _NUMBERED.fullmatch(name)
        if numbered is None or "{" in name:
            yield name, name
        else:
            numbers[numbered[1], len(numbered[2])].append(int(numbered[2]))
    for (stem, width), found in numbers.items():
        runs: list[list[int]] = []
        for number in sorted(found):
            if runs and runs[-1][-1] == number - 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        for run in runs:
            first, last = (f"{number:0{width}}" for number in (run[0], run[-1]))
            name = f"{stem}{first}.tar"
            yield (name if first == last else f"{stem}{{{first}..{last}}}.tar"), name


def _kind_of_tar(path: str) -> str:
    """By its first members; empty: neither of the kinds that are kept in tars."""
    images: set[tuple[str, ...]] = set()
    labels: set[tuple[str, ...]] = set()
    in_folders = False
    try:
        with opened(path) as tar:
            for member, parts in islice(members(path, tar.file, tar.size, remedy=""), _HEADERS):
                stem, _, extension = parts[-1].partition(".") if parts and member.isreg() else ("", "", "")
                if f".{extension.lower()}" in EXTENSIONS:
                    images.add((*parts[:-1], stem))
                    in_folders = in_folders or len(parts) > 1
                elif extension.lower() in LABELS:
                    labels.add((*parts[:-1], stem))
    except (DatasetError, OSError):
        return ""
    if images & labels:
        return "web_dataset"
    return "image_folder" if in_folders else ""


def _is_table(path: str) -> bool:
    try:
        return Path(path).is_file() and starts_well(path, ImageManifest(train=path))
    except DatasetError:
        return False


def _joined(path: str, kind: str, names: Iterable[str]) -> Iterator[Found]:
    """Names that differ in their split alone are one dataset, where train is among them."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        family = _SHARD.sub("", _ROLE.sub("", name, count=1)) if role_of(name) else name
        families[family].append(name)
    for parts in families.values():
        if "train" in map(role_of, parts):
            yield Found(path=path, kind=kind, splits=_in_order(parts))
        else:
            yield from (Found(path=f"{path}/{name}", kind=kind) for name in parts)


def _in_order(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(parts, key=lambda name: (("train", "val", "test").index(role_of(name)), name)))
