"""From entries of a split to batches of pixels.

Every random choice about an image is a function of (seed, epoch, place of the image in its index): neither the number
of threads nor the order in which they finish changes a pixel.

Shape legend: B images a batch, S side of the square input, 3 channels.
"""

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from podium.jobs.datasets import DatasetError, Entry, SplitIndex, index, read_bytes
from podium.jobs.job import Cause
from podium.jobs.spec import Augmentation, ImageFolder, Interpolation, Preprocessing, Resize
from podium.worker.fit._failures import FitError

Pixels = npt.NDArray[np.uint8]
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_MAX_PIXELS = 100_000_000
_MAX_ASPECT = 100
_FILTERS = {Interpolation.BILINEAR: Image.Resampling.BILINEAR, Interpolation.BICUBIC: Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Some images of an index: which ones, and their classes as numbers, (images,) int64 each; of how many classes."""

    index: SplitIndex
    positions: Tensor
    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.positions)

    def class_counts(self) -> tuple[int, ...]:
        """Images of every class, in the order of the classes."""
        return tuple(torch.bincount(self.labels, minlength=self.classes).tolist())


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The images of a job."""

    train: Split
    val: Split
    test: Split | None


def open_splits(dataset: ImageFolder, classes: Sequence[str], seed: int) -> Splits:
    """Reads which images there are; a missing validation split is split off from train, the same share of every class.

    Raises:
        DatasetError: a split is unusable, or has a class that train lacks.
    """
    train = _whole(dataset.train, classes)
    test = _whole(dataset.test, classes) if dataset.test else None
    if dataset.val:
        return Splits(train=train, val=_whole(dataset.val, classes), test=test)
    held_out = _stratified(train.labels.numpy(), dataset.val_fraction, seed)
    if not held_out.any():
        raise DatasetError(
            f"{dataset.train}: val_fraction {dataset.val_fraction} holds out no image; raise it, or name val"
        )
    return Splits(train=_part(train, ~held_out), val=_part(train, held_out), test=test)


def _whole(path: str, classes: Sequence[str]) -> Split:
    split = index(path)
    number = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in split.classes if name not in number]:
        raise DatasetError(f"{path} has the class {unknown[0]!r}, which train lacks; add it to train or take it out")
    labels = torch.tensor([number[entry.class_name] for entry in split.entries])
    return Split(index=split, positions=torch.arange(len(labels)), labels=labels, classes=len(classes))


def _part(split: Split, mask: npt.NDArray[np.bool_]) -> Split:
    chosen = torch.from_numpy(mask)
    return replace(split, positions=split.positions[chosen], labels=split.labels[chosen])


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


class Loader:
    """Decodes, resizes and augments images of an index in threads; Pillow releases the interpreter lock."""

    def __init__(
        self,
        split: SplitIndex,
        preprocessing: Preprocessing,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self._entries = split.entries
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed
        self._threads = threads

    def batches(self, batches: Sequence[Tensor], *, epoch: int | None = None) -> Iterator[Tensor]:
        """Batches of pixels, (B, S, S, 3) uint8, in order; the images of the next two are being loaded meanwhile.

        Args:
            batches: the places of the images of each batch.
            epoch: the epoch that decides the augmentation; None: no augmentation.
        """

        def start(pool: ThreadPoolExecutor, batch: Tensor) -> Callable[[], Tensor]:
            loading = [pool.submit(self.pixels, position, epoch) for position in batch.tolist()]
            return lambda: torch.from_numpy(np.stack([image.result() for image in loading]))

        return _ahead(self._threads, start, batches, depth=2)

    def computed(self, batches: Sequence[Tensor], compute: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """What `compute` makes of each batch of pixels, in order; each thread loads and computes a batch of its own."""

        def work(batch: Tensor) -> Tensor:
            return compute(torch.from_numpy(np.stack([self.pixels(position) for position in batch.tolist()])))

        def start(pool: ThreadPoolExecutor, batch: Tensor) -> Callable[[], Tensor]:
            return pool.submit(work, batch).result

        return _ahead(self._threads, start, batches, depth=self._threads + 1)

    def pixels(self, position: int, epoch: int | None = None) -> Pixels:
        """One image, (S, S, 3).

        Raises:
            DatasetError: it cannot be read or decoded; names the file.
        """
        image = _decode(self._entries[position])
        if self._augmentation is not None and epoch is not None:
            rng = np.random.default_rng([self._seed, 2, epoch, position])
            return np.asarray(_augmented(image, self._augmentation, self._preprocessing, rng))
        return np.asarray(_squared(image, self._preprocessing))


def _ahead(
    threads: int,
    start: Callable[[ThreadPoolExecutor, Tensor], Callable[[], Tensor]],
    batches: Sequence[Tensor],
    *,
    depth: int,
) -> Iterator[Tensor]:
    """The results of batches in order, of which so many are always in the making, so that memory stays bounded."""
    remaining = iter(batches)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        pending = deque(start(pool, batch) for batch in islice(remaining, depth))
        while pending:
            result = pending.popleft()()
            pending.extend(start(pool, batch) for batch in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(entry: Entry) -> Image.Image:
    data = read_bytes(entry)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DatasetError(f"{entry.name} has {image.width} x {image.height} pixels; make it smaller")
            if max(image.size) > _MAX_ASPECT * min(image.size):
                # Its short side is scaled up to the model's input, and the long one with it.
                raise DatasetError(f"{entry.name} has {image.width} x {image.height} pixels; remove it, it is a line")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{entry.name} in {Path(entry.path).name} is no readable image: {error}") from error


def _squared(image: Image.Image, how: Preprocessing) -> Image.Image:
    side, resample = _side(how), _filter(how)
    if how.resize is Resize.SQUASH:
        return image.resize((side, side), resample)
    scale = round(side / (how.crop_fraction or 1.0)) / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), resample).crop((left, top, left + side, top + side))


def _augmented(image: Image.Image, how: Augmentation, then: Preprocessing, rng: np.random.Generator) -> Image.Image:
    if how.min_crop_area > 0:
        box = _random_box(image.width, image.height, how.min_crop_area, rng)
        image = image.resize((_side(then), _side(then)), _filter(then), box=box)
    else:
        image = _squared(image, then)
    if how.horizontal_flip and rng.random() < 0.5:
        image = F.horizontal_flip(image)
    if how.color_jitter > 0:
        for adjust in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation):
            image = adjust(image, 1 + how.color_jitter * (2 * rng.random() - 1))
    return image


def _random_box(width: int, height: int, min_area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of at least `min_area` of the image, its sides up to 4:3; the whole image where ten draws do not fit."""
    for _ in range(10):
        area = width * height * rng.uniform(min_area, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def _side(how: Preprocessing) -> int:
    if how.image_size is None:
        raise FitError(
            Cause.USER_CONFIG, "preprocessing.image_size is not set; the server fills it in, submit through it"
        )
    return how.image_size


def _filter(how: Preprocessing) -> Image.Resampling:
    return _FILTERS[how.interpolation or Interpolation.BILINEAR]


class Normalizer:
    """Pixels to the backbone's input, on the device: (B, S, S, 3) uint8 to (B, 3, S, S) float32, channels last."""

    def __init__(self, how: Preprocessing, device: torch.device) -> None:
        self._device = device
        # The pixels' scale of 255 is folded in, which saves a pass over the batch.
        self._scale = 1 / (255 * torch.tensor(how.std or (1.0, 1.0, 1.0), device=device))
        self._shift = torch.tensor(how.mean or (0.0, 0.0, 0.0), device=device) * 255 * self._scale

    def __call__(self, pixels: Tensor) -> Tensor:
        """The normalised batch."""
        if self._device.type == "cuda":
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        # Permuting a channels-last array gives channels-last strides without a copy.
        return torch.addcmul(-self._shift, pixels.float(), self._scale).permute(0, 3, 1, 2)
