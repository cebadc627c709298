"""Which images are trained on, and which are evaluated on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from podium.jobs.datasets import DatasetError, index
from podium.jobs.spec import ImageFolder, JobSpec
from podium.worker.fit.data._sources import Images, IndexedImages


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


def open_splits(spec: JobSpec, classes: Sequence[str]) -> Splits:
    """Reads which images there are; a missing validation split is split off from train, the same share of every class.

    Raises:
        DatasetError: a split is unusable, or has a class that train lacks.
    """
    dataset = spec.dataset
    assert isinstance(dataset, ImageFolder)
    train = _whole(dataset.train, classes)
    test = _whole(dataset.test, classes) if dataset.test else None
    if dataset.val:
        return Splits(train=train, val=_whole(dataset.val, classes), test=test)
    held_out = _stratified(train.labels.numpy(), dataset.val_fraction, spec.seed)
    if not held_out.any():
        raise DatasetError(
            f"{dataset.train}: val_fraction {dataset.val_fraction} holds out no image; raise it, or name val"
        )
    held = torch.from_numpy(held_out)
    return Splits(train=train.only(~held), val=train.only(held), test=test)


def _whole(path: str, classes: Sequence[str]) -> Split:
    split = index(path)
    number = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in split.classes if name not in number]:
        raise DatasetError(f"{path} has the class {unknown[0]!r}, which train lacks; add it to train or take it out")
    labels = torch.tensor([number[entry.class_name] for entry in split.entries])
    return Split(images=IndexedImages(split), positions=torch.arange(len(labels)), labels=labels, classes=len(classes))


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
