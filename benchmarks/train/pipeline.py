"""Images a second of the data pipeline against torchvision's reference recipes, with as many processes as threads.

The peers are the ImageNet recipe of torchvision's references (ImageFolder, RandomResizedCrop, RandomHorizontalFlip,
PILToTensor, ConvertImageDtype, Normalize) and the usual one for CIFAR (RandomCrop with 4 pixels of padding,
RandomHorizontalFlip, ToTensor, Normalize), each behind a DataLoader whose workers stay alive between epochs. On the CPU
memory is not pinned.

Run alone: python -m benchmarks.train.pipeline [--photos TAR].
"""

import argparse
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.rows import HEAD, Row, ratios, turns
from podium.jobs.datasets import index
from podium.jobs.spec import Augmentation, Interpolation, Preprocessing, Resize
from podium.worker.fit.data import IndexedImages, Memory, Pipeline, Split
from podium.worker.fit.data._torchvision import ArrayImages

THREADS = 2
_BATCH = 128
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PHOTO_BAR, _MEMORY_BAR = ">= 1.5", ">= 5"


def rows(folder: Path, count: int, photos: Path | None = None) -> list[Row]:
    """Medians of so many turns. Photos: a .tar of class folders to compare on, too."""
    made = folder / "photos"
    _make_photos(made, 1024)
    found = [*_photos(f"{len(index(str(made)).entries)} JPEGs of 400 x 300 px", made, made, count), _tiny(count)]
    if photos is not None:
        unpacked = folder / photos.stem
        with tarfile.open(photos) as archive:
            archive.extractall(unpacked, filter="data")
        found += _photos(photos.name, photos, unpacked, count)
    return found


def _photos(what: str, ours: Path, peers: Path, count: int) -> list[Row]:
    """Random crops of 224 px and flips; streamed, and from memory after the first epoch."""
    source = IndexedImages(index(str(ours)))
    peer = _loader(ImageFolder(str(peers), _imagenet_recipe()))
    change = Augmentation(min_crop_area=0.08, horizontal_flip=True)
    streamed, kept = (_epochs(source, _preprocessing(224), change, Memory(memory)) for memory in (0, 4 << 30))
    kept()
    a, b, c = turns(count, streamed, kept, partial(_rate, peer, len(source)))
    return [
        _row(f"{what}, crop and flip, decoded in every epoch", a, c, _PHOTO_BAR),
        _row(f"{what}, crop and flip, decoded in the first epoch", b, c, _PHOTO_BAR),
    ]


def _tiny(count: int) -> Row:
    """CIFAR's shape: 32 px, shifted by up to 4 pixels and flipped."""
    data = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    peer = _loader(_Arrays(data, _cifar_recipe()))
    change = Augmentation(crop_padding=4, horizontal_flip=True)
    ours = _epochs(ArrayImages(_Arrays(data, None), "arrays"), _preprocessing(32), change, Memory(1 << 30))
    ours()
    a, b = turns(count, ours, partial(_rate, peer, len(data)))
    return _row(f"{len(data)} images of 32 x 32 px in memory, shift and flip", a, b, _MEMORY_BAR)


class _Arrays(Dataset[Any]):
    """Items as torchvision's CIFAR gives them."""

    def __init__(self, data: npt.NDArray[np.uint8], transform: Callable[[Image.Image], Any] | None) -> None:
        self.data, self._transform = data, transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        image = Image.fromarray(self.data[place])
        return (image if self._transform is None else self._transform(image)), 0


def _imagenet_recipe() -> Callable[[Image.Image], Any]:
    recipe: Callable[[Image.Image], Any] = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    return recipe


def _cifar_recipe() -> Callable[[Image.Image], Any]:
    recipe: Callable[[Image.Image], Any] = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    return recipe


def _loader(dataset: Dataset[Any]) -> Iterable[Any]:
    loader = DataLoader(
        dataset,
        batch_size=_BATCH,
        shuffle=True,
        num_workers=THREADS,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    next(iter(loader))
    return loader


def _preprocessing(side: int) -> Preprocessing:
    return Preprocessing(
        image_size=side,
        resize=Resize.CROP,
        crop_fraction=0.875 if side > 32 else 1.0,
        interpolation=Interpolation.BILINEAR,
        mean=_MEAN,
        std=_STD,
    )


def _epochs(source: Any, how: Preprocessing, change: Augmentation, memory: Memory) -> Callable[[], float]:
    count = len(source)
    places = torch.arange(count)
    split = Split(images=source, positions=places, labels=torch.zeros(count, dtype=torch.int64), classes=1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = Pipeline(split, how, change, seed=0, threads=THREADS, device=device, memory=memory)
    done = iter(range(1 << 30))

    def epoch() -> float:
        batches = torch.split(torch.randperm(count), _BATCH)
        return _rate(pipeline.batches(batches, epoch=next(done)), count)

    return epoch


def _rate(batches: Iterable[Any], images: int) -> float:
    start = time.perf_counter()
    for _ in batches:
        pass
    return images / (time.perf_counter() - start)


def _row(what: str, ours: list[float], peers: list[float], bar: str) -> Row:
    ratio, spread = ratios(ours, peers)
    return Row(
        what=f"{what}, {THREADS} threads against {THREADS} workers, images/s",
        ours=f"{statistics.median(ours):.0f}",
        peer=f"{statistics.median(peers):.0f}",
        ratio=ratio,
        bar=bar,
        spread=spread,
    )


def _make_photos(folder: Path, count: int) -> None:
    """Smooth colours with the noise of a camera, which take as many bytes as photos do."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 8}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((400, 300))
        noisy = np.asarray(colors, dtype=np.int16) + rng.integers(-12, 13, (300, 400, 3), dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train.pipeline", description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="how often each is timed (default: 5)")
    parser.add_argument("--photos", type=Path, metavar="TAR", help="a .tar of class folders to compare on, too")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder), arguments.turns, arguments.photos)
    for cells in (HEAD, *(row.cells() for row in found)):
        print(" | ".join(cells))


if __name__ == "__main__":
    main()
