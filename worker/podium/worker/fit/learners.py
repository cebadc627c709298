"""What is trained: a linear head on frozen features, or every parameter of a model. The loop treats both alike.

Shape legend: B images a batch, N images of a split, D features, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from podium.jobs.spec import Augmentation, Preprocessing
from podium.worker.fit.data import Loader, Normalizer, Split

Batch = tuple[Tensor, Tensor]
State = dict[str, Tensor]


class Learner(Protocol):
    """Something to train."""

    module: nn.Module
    """What the optimizer changes: from inputs to scores, (B, C)."""
    splits: Mapping[str, Split]
    """"train", "val", and "test" where there is one."""

    def training(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Inputs and labels of the given places of the training split, as the epoch augments them, on the device."""

    def evaluation(self, split: str, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Inputs and labels of the given places of a split, unchanged, on the device."""

    def model_state(self) -> State:
        """The whole model, ready to be used without Podium."""

    def extra_state(self) -> State:
        """What going on needs and `model_state` does not have."""

    def restore(self, model: State, extra: State) -> None:
        """Takes back what the two gave."""


class FullLearner:
    """Every parameter of a model."""

    def __init__(
        self,
        model: nn.Module,
        splits: Mapping[str, Split],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        *,
        seed: int,
        threads: int,
        device: torch.device,
    ) -> None:
        self.module = model.to(device).to(memory_format=torch.channels_last)
        self.splits = splits
        self._normalize = Normalizer(preprocessing, device)
        self._device = device
        self._loaders = {
            name: Loader(split.index, preprocessing, augmentation=augmentation, seed=seed, threads=threads)
            for name, split in splits.items()
        }

    def training(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See `Learner`."""
        return self._load("train", batches, epoch)

    def evaluation(self, split: str, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See `Learner`."""
        return self._load(split, batches, None)

    def model_state(self) -> State:
        """See `Learner`."""
        return dict(self.module.state_dict())

    def extra_state(self) -> State:
        """See `Learner`."""
        return {}

    def restore(self, model: State, extra: State) -> None:
        """See `Learner`."""
        self.module.load_state_dict(model)

    def _load(self, name: str, batches: Sequence[Tensor], epoch: int | None) -> Iterator[Batch]:
        split = self.splits[name]
        pixels = self._loaders[name].batches([split.positions[batch] for batch in batches], epoch=epoch)
        for batch, images in zip(batches, pixels, strict=True):
            yield self._normalize(images), split.labels[batch].to(self._device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Standardizer:
    """Scales features to zero mean and unit variance, and folds that into a linear layer."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor, enabled: bool) -> "Standardizer":
        """The one of a training split, (N, D); one that changes nothing where it is not enabled."""
        if not enabled:
            return cls(mean=torch.zeros(features.shape[1]), std=torch.ones(features.shape[1]))
        exact = features.double()
        std = exact.std(0, correction=0)
        # A feature that never changes says nothing; dividing by its spread would let rounding speak.
        return cls(mean=exact.mean(0).float(), std=torch.where(std > 1e-6, std, 1.0).float())

    def __call__(self, features: Tensor) -> Tensor:
        """The scaled features."""
        return (features - self.mean) / self.std

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The layer, (C, D) and (C,), that gives on plain features what this one gives on scaled ones."""
        folded = weight.double() / self.std.double()
        return folded.float(), (bias.double() - folded @ self.mean.double()).float()


class HeadLearner:
    """A linear head on features that were computed before.

    Args:
        backbone_state: the whole model's parameters; the classifier's are replaced by the head's.
        classifier: the classifier's name in it.
        splits: the images.
        features: by split, (N, D), on the CPU.
        standardize: whether to scale the features.
        classes: C.
        device: where to train.
    """

    def __init__(
        self,
        backbone_state: State,
        classifier: str,
        splits: Mapping[str, Split],
        features: Mapping[str, Tensor],
        *,
        standardize: bool,
        classes: int,
        device: torch.device,
    ) -> None:
        self.splits = splits
        self._backbone_state = backbone_state
        self._classifier = classifier
        self._device = device
        self._scale = Standardizer.of(features["train"], standardize)
        self._features = {name: self._scale(rows) for name, rows in features.items()}
        self._head = nn.Linear(features["train"].shape[1], classes, device=device)
        self.module: nn.Module = self._head

    def training(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See `Learner`."""
        return self.evaluation("train", batches)

    def evaluation(self, split: str, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See `Learner`."""
        for batch in batches:
            rows, labels = self._features[split][batch], self.splits[split].labels[batch]
            yield rows.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)

    def model_state(self) -> State:
        """See `Learner`."""
        weight, bias = self._scale.fold(self._head.weight.detach().cpu(), self._head.bias.detach().cpu())
        return {**self._backbone_state, f"{self._classifier}.weight": weight, f"{self._classifier}.bias": bias}

    def extra_state(self) -> State:
        """See `Learner`."""
        return {"weight": self._head.weight.detach(), "bias": self._head.bias.detach()}

    def restore(self, model: State, extra: State) -> None:
        """See `Learner`."""
        self._head.load_state_dict(extra)
