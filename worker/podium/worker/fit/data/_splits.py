"""Which images are trained on, and which are evaluated on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from podium.jobs.datasets import DatasetError, split_index
from podium.jobs.spec import Dataset, JobSpec, TorchvisionDataset
from podium.worker.fit.data._sources import Images, IndexedImages
from podium.worker.fit.data._torchvision import open_named


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Some images of a source: their places in it, and their classes as numbers, (images,) int64 each; of how many."""

    images: Images
    positions: Tensor
    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.positions)

    def class_counts(self) -> tuple[int, ...]:
        """Images of every class, in the order of the classes."""
        return tuple(torch.bincount(self.labels, minlength=self.classes).tolist())

    def names(self) -> tuple[str, ...]:
        """What to call the images in messages."""
        return tuple(self.images.name(place) for place in self.positions.tolist())

    def only(self, chosen: Tensor) -> "Split":
        """The images for which a mask, (images,), is true."""
        return replace(self, positions=self.positions[chosen], labels=self.labels[chosen])


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The images of a job."""

    train: Split
    val: Split
    test: Split | None

    def leaks(self) -> Iterator[str]:
        """Says of each split that is evaluated on how many of its images are trained on, too."""
        trained = self.train.images
        for name, split in (("val", self.val), ("test", self.test)):
            if split is None or split.images is trained:
                continue
            if isinstance(split.images, IndexedImages) and isinstance(trained, IndexedImages):
                seen = np.flatnonzero(np.isin(split.images.identities(), trained.identities()[self.train.positions]))
                if len(seen):
                    one = split.images.name(int(seen[0]))
                    yield (
                        f"{len(seen)} of {len(split)} images of {name} are images of train, too, {one} among them: "
                        f"the metrics of {name} are better than they would be on new images"
                    )


def open_splits(spec: JobSpec, classes: Sequence[str]) -> Splits:
    """Reads which images there are; a missing validation split is split off from train, the same share of every class.

    Raises:
        DatasetError: a split is unusable, or its classes are not the job's.
    """
    dataset = spec.dataset
    train, val, test = (_open(dataset, split, classes) for split in ("train", "val", "test"))
    assert train is not None  # every dataset names one
    if val is not None:
        return Splits(train=train, val=val, test=test)
    held_out = torch.from_numpy(_stratified(train.labels.numpy(), dataset.val_fraction, spec.seed))
    if not held_out.any():
        raise DatasetError(f"train: val_fraction {dataset.val_fraction} holds out no image; raise it, or name val")
    return Splits(train=train.only(~held_out), val=train.only(held_out), test=test)


def _open(dataset: Dataset, split: Literal["train", "val", "test"], classes: Sequence[str]) -> Split | None:
    found = (
        _named(dataset, split, classes)
        if isinstance(dataset, TorchvisionDataset)
        else _indexed(dataset, split, classes)
    )
    if found is None:
        return None
    images, labels = found
    return Split(images=images, positions=torch.arange(len(labels)), labels=labels, classes=len(classes))


def _named(dataset: TorchvisionDataset, split: str, classes: Sequence[str]) -> tuple[Images, Tensor] | None:
    # What torchvision calls the validation split of some is the test split of others.
    return None if split == "val" else open_named(dataset, split, classes)


def _indexed(
    dataset: Dataset, split: Literal["train", "val", "test"], classes: Sequence[str]
) -> tuple[Images, Tensor] | None:
    index = split_index(dataset, split, classes)
    if index is None:
        return None
    number = {name: i for i, name in enumerate(classes)}
    return IndexedImages(index), torch.tensor([number[entry.class_name] for entry in index.entries])


def _stratified(labels: npt.NDArray[np.int64], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    held_out = np.zeros(len(labels), dtype=bool)
    rng = np.random.default_rng([seed, 0])
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        # A class of one image stays in train.
        count = min(int(fraction * len(members) + 0.5), len(members) - 1)
        held_out[members[:count]] = True
    return held_out


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, (count,) int64, a function of (seed, epoch)."""
    return torch.from_numpy(np.random.default_rng([seed, 1, epoch]).permutation(count))
