"""What is trained: a linear head on frozen features, or every parameter of a model. The loop treats both alike.

Shape legend: B images a batch, N images of a split, D features, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from podium.jobs.spec import Augmentation, Preprocessing, Unreadable
from podium.worker.fit import backbones
from podium.worker.fit.data import Batch, Pipeline, Split, check_unreadable, spare_memory
from podium.worker.fit.features import unread

State = dict[str, Tensor]
_ROWS = 8192


class Learner(Protocol):
    """Something to train."""

    module: nn.Module
    """What the optimizer changes: from inputs to scores, (B, C)."""
    splits: Mapping[str, Split]
    """"train", "val", and "test" where there is one."""

    def training(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Batches of the given places of the training split, as the epoch augments them, on the device."""

    def evaluation(self, split: str, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Batches of the given places of a split, unchanged, on the device."""

    def unreadable(self) -> dict[str, tuple[str, ...]]:
        """Split -> the names of its images that could not be read so far by this process, which are left out."""

    def train(self) -> None:
        """Puts the module into training mode, but for parts that are frozen."""

    def model_state(self) -> State:
        """The whole model, ready to be used without Podium."""

    def extra_state(self) -> State:
        """What going on needs and `model_state` does not have."""

    def restore(self, model: State, extra: State) -> None:
        """Takes back what the two gave."""


class FullLearner:
    """The parameters of a model, all or some.

    Args:
        model: it is moved to the device.
        splits: the images.
        preprocessing: how an image becomes an input.
        augmentation: what chance does to images of "train".
        seed: of chance.
        threads: how many decode images.
        device: where to train.
        unreadable: whether an image that cannot be read ends the job, or is left out of its batch.
        frozen: parts of the model that stay in evaluation mode.
    """

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
        unreadable: Unreadable = Unreadable.FAIL,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        self.module = model.to(device).to(memory_format=torch.channels_last)
        self.splits = splits
        self._frozen = frozen
        memory = spare_memory()
        self._pipelines = {
            name: Pipeline(
                split,
                preprocessing,
                augmentation if name == "train" else None,
                seed=seed,
                threads=threads,
                device=device,
                unreadable=unreadable,
                memory=memory,
            )
            for name, split in splits.items()
        }

    def training(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See `Learner`."""
        return self._pipelines["train"].batches(batches, epoch=epoch)

    def evaluation(self, split: str, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """See `Learner`."""
        return self._pipelines[split].batches(batches, epoch=None)

    def unreadable(self) -> dict[str, tuple[str, ...]]:
        """See `Learner`."""
        return {name: tuple(pipeline.unreadable.values()) for name, pipeline in self._pipelines.items()}

    def train(self) -> None:
        """See `Learner`."""
        self.module.train()
        for part in self._frozen:
            part.eval()

    def model_state(self) -> State:
        """See `Learner`."""
        return dict(self.module.state_dict())

    def extra_state(self) -> State:
        """See `Learner`."""
        return {}

    def restore(self, model: State, extra: State) -> None:
        """See `Learner`."""
        backbones.restore(self.module, model)


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
        # Some rows at a time: all of them with double precision would be the largest thing in memory.
        parts = torch.split(features, _ROWS)
        mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(features)
        squares = torch.stack([(part.double() - mean).square_().sum(0) for part in parts]).sum(0)
        std = (squares / len(features)).sqrt()
        # A feature that never changes says nothing; dividing by its spread would let rounding speak.
        return cls(mean=mean.float(), std=torch.where(std > 1e-6, std, 1.0).float())

    def __call__(self, features: Tensor) -> Tensor:
        """The scaled features."""
        return (features - self.mean).div_(self.std)

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The layer, (C, D) and (C,), that gives on plain features what this one gives on scaled ones."""
        folded = weight.double() / self.std.double()
        return folded.float(), (bias.double() - folded @ self.mean.double()).float()


class HeadLearner:
    """A linear head on features that were computed before.

    Args:
        backbone_state: the whole model's parameters; the classifier's are replaced by the head's.
        classifier: the classifier's name in it.
        splits: the images; those that could not be read are left out.
        features: by split, (N, D), on the CPU; a row of NaN: the image could not be read.
        standardize: whether to scale the features.
        classes: C.
        device: where to train.

    Raises:
        FitError: too many images of a split could not be read.
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
        read = {name: ~unread(rows) for name, rows in features.items()}
        # Selecting would copy what may be most of the memory.
        features = {name: rows if read[name].all() else rows[read[name]] for name, rows in features.items()}
        self.splits: Mapping[str, Split] = {name: split.only(read[name]) for name, split in splits.items()}
        self._unreadable = {name: split.only(~read[name]).names() for name, split in splits.items()}
        for name, names in self._unreadable.items():
            check_unreadable(names, len(splits[name]))
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
            yield Batch(rows.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True))

    def unreadable(self) -> dict[str, tuple[str, ...]]:
        """See `Learner`."""
        return self._unreadable

    def train(self) -> None:
        """See `Learner`."""
        self.module.train()

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
