"""From images to batches: what chance may depend on, and what becomes of images that cannot be read."""

import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from timm.models import get_pretrained_cfg
from torch import Tensor
from torchvision import models

from podium.jobs.catalogue import Card, find_backbone
from podium.jobs.datasets import DatasetError, index
from podium.jobs.job import Cause
from podium.jobs.spec import Augmentation, Interpolation, Preprocessing, Resize, Unreadable
from podium.worker.fit._failures import FitError
from podium.worker.fit.data import (
    IndexedImages,
    Memory,
    Normalizer,
    Pipeline,
    Split,
)
from podium.worker.fit.data._memory import _available
from podium.worker.fit.data._reader import squared

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


def test_mixed_batches_are_the_same_in_every_attempt_and_keep_their_layout(images):
    path = images("train")
    how = Augmentation(mixup_alpha=0.2, cutmix_alpha=1.0)
    order = [torch.randperm(24, generator=torch.Generator().manual_seed(1))]

    (first,), (second,) = (pipeline(path, how, threads=n).batches(order, epoch=3) for n in (1, 3))

    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets, second.targets)
    assert (24, 3) == first.targets.shape
    assert first.inputs.is_contiguous(memory_format=torch.channels_last)


def test_batches_come_in_order_with_their_labels(images):
    batches = [torch.tensor([23, 0]), torch.tensor([8, 9, 10]), torch.tensor([1])]

    found = list(pipeline(images("train"), threads=3).batches(batches, epoch=None))

    assert [[2, 0], [1, 1, 1], [0]] == [batch.targets.tolist() for batch in found]
    assert found[0].inputs.is_contiguous(memory_format=torch.channels_last)
    assert found[0].inputs.dtype is torch.float32


def test_a_batch_is_never_written_over_while_somebody_holds_it(images):
    batches = pipeline(images("train"), threads=2).batches([torch.tensor([n]) for n in range(24)], epoch=None)
    kept = next(batches).inputs[:, :1]
    before = kept.clone()

    addresses = {batch.inputs.data_ptr() for batch in batches}

    assert torch.equal(before, kept)
    # What nobody holds is used again.
    assert len(addresses) < 23


def test_a_containers_limit_bounds_what_images_may_take(tmp_path):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 3500\ninactive_file 500\n")

    assert 1500 == _available(tmp_path)
    assert 1500 < _available(tmp_path / "nothing")


def test_a_reader_that_stops_early_leaves_no_thread_behind(images):
    before = threading.active_count()
    batches = pipeline(images("train"), threads=2).batches([torch.tensor([0])] * 24, epoch=None)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator

    assert before == threading.active_count()


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
    place = [entry.name for entry in index(path).entries].index("class0/3.png")
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


def test_a_batch_to_train_on_of_which_nothing_can_be_read_is_an_error(images):
    path = images("train", classes=2, each=50)
    spoil(path, "class0/0.png")

    with pytest.raises(DatasetError, match=r"none of a batch's 1 images can be read, class0/0\.png"):
        inputs(pipeline(path, unreadable=Unreadable.SKIP), [[0]], 0)


def test_a_batch_to_evaluate_may_come_without_images(images):
    path = images("train", classes=2, each=50)
    spoil(path, "class0/0.png")

    empty, whole = pipeline(path, unreadable=Unreadable.SKIP).batches(
        [torch.tensor([0]), torch.arange(1, 5)], epoch=None
    )

    assert (0, 0, 4) == (len(empty.inputs), len(empty.targets), len(whole.targets))


def test_a_crop_keeps_the_centre_of_the_short_side(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 32:96] = 255
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    how = Preprocessing(image_size=32, resize=Resize.CROP, crop_fraction=1.0, interpolation=Interpolation.BILINEAR)

    assert inputs(pipeline(str(tmp_path), preprocessing=how), [[0]], None).min() > 120 / 255


@pytest.mark.parametrize(
    ("backbone", "tag"),
    [
        ("torchvision/resnet50", "IMAGENET1K_V2"),
        ("torchvision/efficientnet_b1", "IMAGENET1K_V2"),
        ("torchvision/inception_v3", "IMAGENET1K_V1"),
        ("timm/resnet50", "a1_in1k"),
        ("timm/beit_base_patch16_224", "in22k_ft_in22k_in1k"),
    ],
)
def test_an_evaluation_sees_what_the_librarys_own_sees(backbone, tag):
    known = find_backbone(backbone)
    assert known is not None
    library, _, name = backbone.partition("/")
    own = {item.name: getattr(known.tags[tag], item.name) for item in fields(Card)}
    how, normalize = Preprocessing(**own), Normalizer(Preprocessing(**own), CPU)
    if library == "timm":
        told, data = cast("Any", get_pretrained_cfg(f"{name}.{tag}")), cast("Any", timm.data)
        theirs = data.create_transform(**data.resolve_data_config(pretrained_cfg=told.to_dict()))
    else:
        theirs = models.get_model_weights(name)[tag].transforms()

    for size in ((375, 500), (640, 427), (100, 101), (1201, 300)):
        image = Image.effect_noise(size, 80).convert("RGB")
        pixels = torch.from_numpy(np.array(squared(image, how)))[None]
        normalize(pixels, got := torch.empty(pixels.shape))
        assert torch.allclose(theirs(image), got[0].permute(2, 0, 1), atol=1e-5), size


def test_of_a_panorama_in_which_no_random_crop_fits_the_middle_is_seen_and_not_squashed(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.zeros((40, 200, 3), dtype=np.uint8)
    pixels[:, 70:130] = 255
    Image.fromarray(pixels).save(tmp_path / "a" / "1.png")

    assert inputs(pipeline(str(tmp_path), Augmentation(min_crop_area=0.9)), [[0]], 0).min() > 120 / 255


def test_normalizing_is_the_textbook_formula():
    how = Preprocessing(image_size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)

    expected = (pixels / 255 - torch.tensor(how.mean)) / torch.tensor(how.std)

    got = torch.empty(2, 8, 8, 3)
    Normalizer(how, CPU)(pixels, got)

    assert torch.allclose(expected, got, atol=1e-6)
