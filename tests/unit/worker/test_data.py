from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from podium.jobs.datasets import DatasetError, SplitIndex, index
from podium.jobs.spec import Augmentation, ImageFolder, Interpolation, Preprocessing, Resize
from podium.worker.fit.data import Loader, Normalizer, open_splits, shuffled

PLAIN = Preprocessing(image_size=32, resize=Resize.SQUASH, interpolation=Interpolation.BICUBIC)
WILD = Augmentation(horizontal_flip=True, min_crop_area=0.3, color_jitter=0.4)


def _pixels(split: SplitIndex, threads: int, epoch: int | None) -> torch.Tensor:
    loader = Loader(split, PLAIN, augmentation=WILD, seed=5, threads=threads)
    return torch.cat(list(loader.batches(list(torch.split(torch.arange(len(split.entries)), 5)), epoch=epoch)))


def test_augmentation_does_not_depend_on_the_number_of_threads(images):
    split = index(images("train"))

    assert torch.equal(_pixels(split, 1, 0), _pixels(split, 4, 0))


def test_augmentation_changes_with_the_epoch_and_not_without_one(images):
    split = index(images("train"))

    assert not torch.equal(_pixels(split, 1, 0), _pixels(split, 1, 1))
    assert torch.equal(_pixels(split, 1, None), _pixels(split, 1, None))


def test_every_epoch_has_its_own_order_and_every_seed_too():
    assert torch.equal(shuffled(50, 1, 2), shuffled(50, 1, 2))
    assert not torch.equal(shuffled(50, 1, 2), shuffled(50, 1, 3))
    assert not torch.equal(shuffled(50, 1, 2), shuffled(50, 2, 2))
    assert list(range(50)) == sorted(shuffled(50, 1, 2).tolist())


def test_val_fraction_takes_the_same_share_of_every_class_and_nothing_twice(images):
    path = images("train", classes=4, each=8)
    splits = open_splits(ImageFolder(train=path, val_fraction=0.25), list(index(path).classes), 0)

    assert torch.bincount(splits.val.labels).tolist() == [2, 2, 2, 2]
    assert list(range(32)) == sorted([*splits.train.positions.tolist(), *splits.val.positions.tolist()])


def test_a_class_that_train_lacks_is_an_error(images):
    dataset = ImageFolder(train=images("train", classes=2), val=images("val", classes=3))

    with pytest.raises(DatasetError, match="has the class 'class2', which train lacks"):
        open_splits(dataset, ["class0", "class1"], 0)


def test_val_may_lack_classes(images):
    dataset = ImageFolder(train=images("train", classes=3), val=images("val", classes=2))

    assert set(open_splits(dataset, ["class0", "class1", "class2"], 0).val.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"GIF89a" + b"\0" * 50])
def test_a_broken_image_is_named(images, content):
    path = Path(images("train", classes=2))
    (path / "class0" / "3.png").write_bytes(content)

    with pytest.raises(DatasetError, match=r"class0/3\.png"):
        Loader(index(str(path)), PLAIN).pixels(3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_images_of_every_mode_become_three_channels(tmp_path, mode):
    (tmp_path / "a").mkdir()
    name = "1.jpg" if mode == "CMYK" else "1.png"
    Image.new(mode, (40, 50)).save(tmp_path / "a" / name)

    assert Loader(index(str(tmp_path)), PLAIN).pixels(0).shape == (32, 32, 3)


def test_a_crop_keeps_the_centre_of_the_short_side(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 32:96] = 255
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    how = Preprocessing(image_size=32, resize=Resize.CROP, crop_fraction=1.0, interpolation=Interpolation.BILINEAR)

    assert Loader(index(str(tmp_path)), how).pixels(0).min() > 120


def test_normalizing_is_the_textbook_formula():
    how = Preprocessing(image_size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    expected = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(how.mean).view(3, 1, 1)) / torch.tensor(how.std).view(
        3, 1, 1
    )

    got = Normalizer(how, torch.device("cpu"))(pixels)

    assert torch.allclose(expected, got, atol=1e-6)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_an_image_that_is_a_line_is_refused_before_it_is_blown_up(tmp_path):
    (tmp_path / "train" / "line").mkdir(parents=True)
    Image.new("RGB", (1, 20_000)).save(tmp_path / "train" / "line" / "0.png")
    loader = Loader(index(str(tmp_path / "train")), replace(PLAIN, resize=Resize.CROP), threads=1)

    with pytest.raises(DatasetError, match="it is a line"):
        list(loader.batches([torch.tensor([0])]))
