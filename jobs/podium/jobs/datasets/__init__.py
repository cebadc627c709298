"""Which images a dataset holds, of which classes, at which bytes: class folders, tables and shards.

    folder.py  ImageFolder     a folder or a .tar of class folders
    table.py   ImageManifest   a .csv or .parquet table of paths and labels
    shards.py  WebDataset      .tar shards of images and labels, by path or URI

Nothing here decodes an image. Datasets of torchvision have no index; `podium.jobs.catalogue` knows their classes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from podium.jobs.datasets._folder import index
from podium.jobs.datasets._index import EXTENSIONS, DatasetError, Entry, ImageError, SplitIndex, read_bytes
from podium.jobs.datasets._recognise import Found, Listing, Look, recognise, role_of
from podium.jobs.datasets._shards import expand_shards, index_shards
from podium.jobs.datasets._table import ROWS_AT_THE_DOOR, index_table, scan_table
from podium.jobs.spec import Dataset, ImageFolder, ImageManifest, WebDataset

Split = Literal["train", "val", "test"]


def split_index(dataset: Dataset, split: Split, classes: Sequence[str]) -> SplitIndex | None:
    """The images of a split; None: the dataset names no such split.

    Args:
        dataset: class folders, a table or shards.
        split: which one.
        classes: the job's classes. Empty: not known yet, so any class will do (not for shards).

    Raises:
        DatasetError: the split is unusable, holds an image of another class, or, where it is train, none of a class.
        TypeError: a dataset of torchvision, which torchvision itself reads.
    """
    match dataset:
        case ImageFolder():
            path = getattr(dataset, split)
            found = index(path) if path else None
        case ImageManifest():
            table = getattr(dataset, split)
            found = index_table(table, dataset) if table else None
        case WebDataset():
            shards = getattr(dataset, split)
            found = index_shards(shards, classes) if shards else None
        case _:
            raise TypeError(f"{type(dataset).__name__} has no index")
    if found is not None:
        check_counts(found.path, dict.fromkeys(found.empty, 0) | found.counts, split, classes)
    return found


def scan_split(dataset: ImageFolder | ImageManifest, split: Split) -> Mapping[str, int] | None:
    """Class name -> images, sorted by name, an empty class folder included; None: there is no such split.

    What a server asks before it accepts a job: of a long table only the first images are looked for.

    Raises:
        DatasetError: the split is unusable.
    """
    path = getattr(dataset, split)
    if not path:
        return None
    if isinstance(dataset, ImageManifest):
        return scan_table(path, dataset)
    found = index(path)
    return dict(sorted((dict.fromkeys(found.empty, 0) | found.counts).items()))


def check_counts(where: str, counts: Mapping[str, int], split: Split, classes: Sequence[str]) -> None:
    """Whether a split has the images that the classes ask for.

    Args:
        where: the split, for the sentence.
        counts: class name -> images.
        split: train must have an image of every class, and no empty class folder.
        classes: the job's classes; empty: not known yet.

    Raises:
        DatasetError: it has not; names the class.
    """
    if split == "train" and (empty := [name for name, images in counts.items() if not images]):
        raise DatasetError(f"{where} has the empty class folder {empty[0]!r}; remove it, or add images")
    if not classes:
        return
    if unknown := sorted({name for name, images in counts.items() if images}.difference(classes)):
        raise DatasetError(
            f"{where} has the class {unknown[0]!r}, which is none of the job's classes; take it out, "
            "add it to train, or list it in classes"
        )
    if split == "train" and (missing := [name for name in classes if not counts.get(name)]):
        raise DatasetError(f"{where} has no image of the class {missing[0]!r}; add one, or take it out of classes")


def scan_classes(path: str) -> dict[str, int]:
    """Class name -> images, sorted by name, of a folder of class folders or a .tar of them.

    Raises:
        DatasetError: as `index`.
    """
    return index(path).counts


__all__ = [
    "EXTENSIONS",
    "ROWS_AT_THE_DOOR",
    "DatasetError",
    "Entry",
    "Found",
    "ImageError",
    "Listing",
    "Look",
    "Split",
    "SplitIndex",
    "check_counts",
    "expand_shards",
    "index",
    "read_bytes",
    "recognise",
    "role_of",
    "scan_classes",
    "scan_split",
    "split_index",
]
