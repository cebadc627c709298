"""The datasets of torchvision that a spec may name, as they lie on storage; nothing is downloaded.

CIFAR's files are pickles. torchvision compares each with a digest in its own code before it reads it, and does so here,
because `download=False` leaves that check on.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from podium.jobs.catalogue import DatasetCard, find_dataset
from podium.jobs.datasets import DatasetError, Entry, SplitIndex
from podium.jobs.spec import TorchvisionDataset
from podium.worker.fit.data._sources import Images, IndexedImages

#: Where a dataset lies below the folder that torchvision calls root.
_FOLDERS = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "DTD": "dtd/dtd",
    "EuroSAT": "eurosat/2750",
    "FGVCAircraft": "fgvc-aircraft-2013b",
    "FashionMNIST": "FashionMNIST/raw",
    "Flowers102": "flowers-102",
    "Food101": "food-101",
    "GTSRB": "gtsrb/GTSRB",
    "KMNIST": "KMNIST/raw",
    "MNIST": "MNIST/raw",
    "OxfordIIITPet": "oxford-iiit-pet",
    "STL10": "stl10_binary",
    "SVHN": "",
}
_FILES = ("_image_files", "_images", "_samples", "samples")
_LABELS = ("targets", "labels", "_labels")


class ArrayImages:
    """Images that lie decoded in an array.

    Args:
        dataset: of torchvision; its `data` is the array, and its items are images.
        name: what to call it.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        self._name = name
        data = np.ascontiguousarray(dataset.data)
        self.digest = hashlib.sha256(f"{name}\0{data.shape}\0".encode() + data.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._dataset)

    def image(self, place: int, *, at_least: float = 0) -> Image.Image:
        """See `Images`."""
        image: Image.Image = self._dataset[place][0]
        return image.convert("RGB")

    def name(self, place: int) -> str:
        """See `Images`."""
        return f"image {place} of {self._name}"


def open_named(dataset: TorchvisionDataset, split: str, classes: Sequence[str]) -> tuple[Images, torch.Tensor] | None:
    """The images of "train" or "test" and their labels, (images,) int64; None: the dataset has no such split.

    Raises:
        DatasetError: it is not there as torchvision wants it, or its classes are not the job's.
    """
    card = find_dataset(dataset.name)
    if card is None:
        raise DatasetError(f"{dataset.name} is no dataset that can be named; docs/data.md lists those")
    if tuple(classes) != card.classes:
        raise DatasetError(
            f"the classes of {card.name} are those of torchvision, in its order; leave `classes` out of the spec"
        )
    how = getattr(card, split)
    return None if how is None else _read(card, dataset.root, split, how)


def _read(card: DatasetCard, root: str, split: str, how: Mapping[str, Any]) -> tuple[Images, torch.Tensor]:
    opened = _construct(card.name, root, how)
    found = getattr(opened, "classes", None)
    if found is not None and tuple(found) != card.classes:
        raise DatasetError(f"{root}: the classes of this {card.name} are not the published ones; copy it there again")
    files = next((getattr(opened, name) for name in _FILES if hasattr(opened, name)), None)
    labels = next((getattr(opened, name) for name in _LABELS if hasattr(opened, name)), None)
    if labels is None:
        labels = [label for _, label in opened._samples]
    numbers = torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    if len(numbers) != len(opened) or not ((numbers >= 0) & (numbers < len(card.classes))).all():
        raise DatasetError(f"{root}: the labels of this {card.name} are not its classes'; copy it there again")
    if files is None:
        return ArrayImages(opened, f"{card.name} {split}"), numbers
    paths = [str(file[0] if isinstance(file, tuple) else file) for file in files]
    return IndexedImages(_index(root, paths, [card.classes[number] for number in numbers.tolist()])), numbers


def _construct(name: str, root: str, how: Mapping[str, Any]) -> Any:
    folder = Path(root, _FOLDERS[name])
    try:
        return getattr(datasets, name)(root=root, **how)
    except ImportError as error:
        raise DatasetError(f"torchvision needs the package {error.name} to read {name}; install it") from error
    except Exception as error:  # whatever a reader of a dozen formats trips over
        reason = "DATASET_UNUSABLE" if folder.exists() else "DATASET_NOT_FOUND"
        told = str(error).partition(" You can use download")[0]
        raise DatasetError(f"{name} is not there as torchvision keeps it in {folder}: {told}", reason=reason) from error


def _index(root: str, paths: Sequence[str], class_names: Sequence[str]) -> SplitIndex:
    inside = os.path.realpath(root)
    return SplitIndex(
        path=root,
        entries=tuple(_entry(inside, path, name) for path, name in zip(paths, class_names, strict=True)),
    )


def _entry(root: str, path: str, class_name: str) -> Entry:
    real = os.path.realpath(path)
    name = os.path.relpath(path, root)
    name = name if name.isprintable() else ascii(name)[1:-1]
    if not real.startswith(f"{root}{os.sep}"):
        raise DatasetError(f"{name} lies outside of its dataset; take it out, or copy the dataset there again")
    try:
        status = Path(real).stat()
    except OSError as error:
        raise DatasetError(f"{name} cannot be read: {error.strerror}; copy the dataset there again") from error
    return Entry(
        path=real, offset=0, size=status.st_size, name=name, class_name=class_name, modified=status.st_mtime_ns
    )
