"""From images to batches: what chance may depend on, what is left out, and what is refused."""

import io
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from podium.jobs.datasets import DatasetError, index
from podium.jobs.job import Cause
from podium.jobs.spec import Augmentation, ImageFolder, Interpolation, Preprocessing, Resize, Unreadable
from podium.worker.fit._failures import FitError
from podium.worker.fit.data import (
    IndexedImages,
    Memory,
    Normalizer,
    Pipeline,
    Split,
    open_splits,
    shuffled,
)

CPU = torch.device("cpu")
PLAIN = Preprocessing(image_size=32, resize=Resize.SQUASH, interpolation=Interpolation.BICUBIC)
CHANGES = {
    "horizontal_flip": Augmentation(horizontal_flip=True),
    "min_crop_area": Augmentation(min_crop_area=0.3),
    "color_jitter": Augmentation(color_jitter=0.4),
    "crop_padding": Augmentation(crop_padding=4),
    "rand_augment": Augmentation(rand_augment=2),
    "random_erasing": Augmentation(random_erasing=0.7),
    "all": Augmentation(
        horizontal_flip=True,
        min_crop_area=0.3,
        color_jitter=0.4,
        crop_padding=4,
        rand_augment=2,
        random_erasing=0.7,
    ),
}


def split_of(path: str) -> Split:
    found = index(path)
    labels = torch.tensor([found.classes.index(entry.class_name) for entry in found.entries])
    return Split(
        images=IndexedImages(found), positions=torch.arange(len(labels)), labels=labels, classes=len(found.classes)
    )


def pipeline(path: str, augmentation: Augmentation | None = None, *, threads: int = 1, **options: Any) -> Pipeline:
    how = options.pop("preprocessing", PLAIN)
    return Pipeline(split_of(path), how, augmentation, seed=5, threads=threads, device=CPU, **options)


def inputs(source: Pipeline, batches: Sequence[Sequence[int]], epoch: int | None) -> Tensor:
    return torch.cat([batch.inputs for batch in source.batches([torch.tensor(b) for b in batches], epoch=epoch)])


def in_fives(count: int) -> list[list[int]]:
    return [list(range(at, min(at + 5, count))) for at in range(0, count, 5)]


@pytest.mark.parametrize("change", CHANGES)
def test_chance_depends_on_the_image_alone_and_not_on_its_batch_or_the_threads_or_the_memory(images, change):
    path = images("train")
    one = inputs(pipeline(path, CHANGES[change]), in_fives(24), 0)
    kept = pipeline(path, CHANGES[change], memory=Memory(1 << 30))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))

    many = inputs(pipeline(path, CHANGES[change], threads=4), [order.tolist()], 0)
    inputs(kept, in_fives(24), 0)
    again = inputs(kept, [[place] for place in range(24)], 0)

    assert torch.equal(one[order], many)
    assert torch.equal(one, again)


@pytest.mark.parametrize("change", CHANGES)
def test_every_epoch_changes_images_anew_and_none_changes_nothing(images, change):
    path = images("train")
    source = pipeline(path, CHANGES[change])

    assert not torch.equal(inputs(source, in_fives(24), 0), inputs(source, in_fives(24), 1))
    assert torch.equal(inputs(source, in_fives(24), None), inputs(pipeline(path), in_fives(24), None))


def test_one_kind_of_change_does_not_shift_the_chance_of_another(images):
    path = images("train")
    flips = inputs(pipeline(path, Augmentation(horizontal_flip=True)), in_fives(24), 0)
    both = inputs(pipeline(path, Augmentation(horizontal_flip=True, random_erasing=0.5)), in_fives(24), 0)

    assert torch.equal(flips[both != 0], both[both != 0])


def test_memory_that_holds_a_part_of_the_images_spares_decoding_of_that_part(images, monkeypatch):
    decoded: list[int] = []
    whole = IndexedImages.image

    def counting(self: IndexedImages, place: int, **options: Any) -> Image.Image:
        decoded.append(place)
        return whole(self, place, **options)

    monkeypatch.setattr(IndexedImages, "image", counting)
    source = pipeline(images("train"), memory=Memory(10 * 32 * 32 * 3))

    first, second = (inputs(source, in_fives(24), None) for _ in range(2))

    assert torch.equal(first, second)
    assert 24 + 14 == len(decoded)


def test_batches_come_in_order_with_their_labels(images):
    batches = [torch.tensor([23, 0]), torch.tensor([8, 9, 10]), torch.tensor([1])]

    found = list(pipeline(images("train"), threads=3).batches(batches, epoch=None))

    assert [[2, 0], [1, 1, 1], [0]] == [batch.targets.tolist() for batch in found]
    assert found[0].inputs.is_contiguous(memory_format=torch.channels_last)
    assert found[0].inputs.dtype is torch.float32


def test_a_reader_that_stops_early_leaves_no_thread_behind(images):
    before = threading.active_count()
    batches = pipeline(images("train"), threads=2).batches([torch.tensor([0])] * 24, epoch=None)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator

    assert before == threading.active_count()


def test_every_epoch_has_its_own_order_and_every_seed_too():
    assert torch.equal(shuffled(50, 1, 2), shuffled(50, 1, 2))
    assert not torch.equal(shuffled(50, 1, 2), shuffled(50, 1, 3))
    assert not torch.equal(shuffled(50, 1, 2), shuffled(50, 2, 2))
    assert list(range(50)) == sorted(shuffled(50, 1, 2).tolist())


def test_val_fraction_takes_the_same_share_of_every_class_and_nothing_twice(images, job):
    path = images("train", classes=4, each=8)
    spec = job(path).spec
    splits = open_splits(replace(spec, dataset=ImageFolder(train=path, val_fraction=0.25)), index(path).classes)

    assert torch.bincount(splits.val.labels).tolist() == [2, 2, 2, 2]
    assert list(range(32)) == sorted([*splits.train.positions.tolist(), *splits.val.positions.tolist()])


def test_a_class_that_train_lacks_is_an_error(images, job):
    dataset = ImageFolder(train=images("train", classes=2), val=images("val", classes=3))

    with pytest.raises(DatasetError, match="has the class 'class2'"):
        open_splits(job(dataset.train, dataset=dataset).spec, ["class0", "class1"])


def test_val_may_lack_classes(images, job):
    dataset = ImageFolder(train=images("train", classes=3), val=images("val", classes=2))
    spec = job(dataset.train, dataset=dataset).spec

    assert set(open_splits(spec, ["class0", "class1", "class2"]).val.labels.tolist()) == {0, 1}


# Unreadable images


def spoil(path: str, name: str, content: bytes = b"no image") -> None:
    (Path(path) / name).write_bytes(content)


def test_an_unreadable_image_ends_the_job_and_is_named(images):
    path = images("train", classes=2)
    spoil(path, "class0/3.png")

    with pytest.raises(DatasetError, match=r"class0/3\.png"):
        inputs(pipeline(path), in_fives(16), None)


def test_a_skipped_image_is_left_out_of_its_batch_and_named_once(images):
    path = images("train", classes=2, each=100)
    spoil(path, "class0/3.png")
    source = pipeline(path, CHANGES["all"], threads=2, unreadable=Unreadable.SKIP)
    place = next(n for n in range(200) if source._split.images.name(n) == "class0/3.png")
    batches = [torch.arange(0, 50), torch.arange(50, 200)]

    for epoch in range(2):
        first, second = source.batches(batches, epoch=epoch)

    others = [n for n in range(50) if n != place]
    assert (49, 49) == (len(first.inputs), len(first.targets))
    assert 150 == len(second.inputs)
    assert {place: "class0/3.png"} == source.unreadable
    assert torch.equal(first.inputs, inputs(source, [others], 1))


def test_more_than_one_in_a_hundred_unreadable_images_end_the_job(images):
    path = images("train", classes=2, each=50)
    for number in range(2):
        spoil(path, f"class0/{number}.png")

    with pytest.raises(FitError, match="2 of 100 images cannot be read") as caught:
        inputs(pipeline(path, unreadable=Unreadable.SKIP), in_fives(100), None)
    assert caught.value.cause is Cause.DATA
    assert "class0/0.png" in str(caught.value)


def test_a_batch_of_which_nothing_can_be_read_is_an_error(images):
    path = images("train", classes=2, each=50)
    spoil(path, "class0/0.png")

    with pytest.raises(DatasetError, match=r"none of a batch's 1 images can be read, class0/0\.png"):
        inputs(pipeline(path, unreadable=Unreadable.SKIP), [[0]], None)


# Hostile images


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


PHOTO = Image.effect_mandelbrot((300, 200), (-3, -2.5, 2, 2.5), 50).convert("RGB")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no readable image"),
        (b"no image", "no readable image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "no readable image"),
        (b"GIF89a" + b"\0" * 50, "no readable image"),
        (encoded(PHOTO, "JPEG")[:2000], "truncated"),
        (encoded(PHOTO, "PNG")[:3000], "no readable image"),
        (png_header(60_000, 60_000), "pixels; make it smaller"),
        (png_header(12_000, 9_000), "pixels; make it smaller"),
        (encoded(Image.new("RGB", (1, 20_000)), "PNG"), "it is a line"),
    ],
)
def test_what_is_no_image_to_train_on_is_refused_by_name(tmp_path, content, told):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(content)

    with pytest.raises(DatasetError, match=rf"a/1\.png in 1\.png .*{told}"):
        inputs(pipeline(str(tmp_path)), [[0]], None)


def only_image(tmp_path: Path, content: bytes, side: int = 32) -> Tensor:
    (tmp_path / "a").mkdir(exist_ok=True)
    (tmp_path / "a" / "1.png").write_bytes(content)
    return (inputs(pipeline(str(tmp_path), preprocessing=replace(PLAIN, image_size=side)), [[0]], None) * 255).round()[
        0
    ]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_images_of_every_mode_become_three_channels(tmp_path, mode):
    content = encoded(Image.new(mode, (40, 50)), "JPEG" if mode == "CMYK" else "PNG")

    assert only_image(tmp_path, content).shape == (3, 32, 32)


def test_sixteen_bits_become_the_upper_eight(tmp_path):
    content = encoded(Image.fromarray(np.full((40, 40), 200 << 8, dtype=np.uint16)), "PNG")

    assert (only_image(tmp_path, content) == 200).all()


def test_transparency_lies_on_white(tmp_path):
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    palette = Image.new("P", (40, 40))

    assert (only_image(tmp_path, encoded(clear, "PNG")) == 255).all()
    assert (only_image(tmp_path, encoded(palette, "PNG", transparency=bytes([0] * 256))) == 255).all()


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    assert [255, 0, 0] == only_image(tmp_path, content)[:, 0, 0].tolist()


def test_the_orientation_of_the_camera_is_applied(tmp_path):
    upright = Image.new("RGB", (40, 40), "white")
    upright.paste("black", (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    content = encoded(upright.transpose(Image.Transpose.ROTATE_180), "JPEG", exif=exif)

    assert only_image(tmp_path, content)[:, 0].max() < 10
    assert only_image(tmp_path, content)[:, -1].min() > 245


def test_a_large_photo_looks_the_same_though_it_is_decoded_at_a_part_of_its_size(tmp_path):
    large = PHOTO.resize((1500, 1000), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.asarray(large.resize((64, 64), Image.Resampling.BICUBIC)).copy()).permute(2, 0, 1)

    found = only_image(tmp_path, encoded(large, "JPEG", quality=95), side=64)

    assert (found - expected).abs().mean() < 2


def test_a_crop_keeps_the_centre_of_the_short_side(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 32:96] = 255
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    how = Preprocessing(image_size=32, resize=Resize.CROP, crop_fraction=1.0, interpolation=Interpolation.BILINEAR)

    assert inputs(pipeline(str(tmp_path), preprocessing=how), [[0]], None).min() > 120 / 255


def test_normalizing_is_the_textbook_formula():
    how = Preprocessing(image_size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)

    expected = (pixels / 255 - torch.tensor(how.mean)) / torch.tensor(how.std)

    assert torch.allclose(expected, Normalizer(how, CPU)(pixels), atol=1e-6)
