"""What chance does to images: the distributions, and that it is torchvision's arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from podium.jobs.spec import Augmentation
from podium.worker.fit.data._augment import Augmenter
from podium.worker.fit.data._boxes import DRAWS, random_boxes
from podium.worker.fit.data._color import brightened, contrasted, saturated
from podium.worker.fit.data._mixing import mixed
from podium.worker.fit.data._rand_augment import _operations
from podium.worker.fit.data._randomness import Draw, uniforms
from podium.worker.fit.data._reader import _shifted

PLACES = np.arange(4000)


def pixels(count: int = 3, side: int = 40) -> torch.Tensor:
    noise = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return (noise // 2 + torch.arange(side)).to(torch.uint8, memory_format=torch.channels_last)


@given(
    seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6), place=st.integers(0, 10**9), draw=st.sampled_from(Draw)
)
def test_a_number_is_a_function_of_seed_epoch_place_and_purpose_whatever_stands_beside_it(seed, epoch, place, draw):
    alone = uniforms(seed, epoch, np.array([place]), draw, 3)
    among = uniforms(seed, epoch, np.array([1, place, 2]), draw, 5)

    assert (alone[0] == among[1, :3]).all()
    assert ((alone >= 0) & (alone < 1)).all()


def test_numbers_are_even_and_those_of_neighbours_have_nothing_to_do_with_one_another():
    numbers = uniforms(0, 0, PLACES, Draw.CROP, 2)
    others = [
        uniforms(1, 0, PLACES, Draw.CROP, 2),
        uniforms(0, 1, PLACES, Draw.CROP, 2),
        uniforms(0, 0, PLACES + 1, Draw.CROP, 2),
        uniforms(0, 0, PLACES, Draw.SHIFT, 2),
        numbers[:, ::-1],
    ]

    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 800).max() < 120
    for other in others:
        assert abs(np.corrcoef(numbers[:, 0], other[:, 0])[0, 1]) < 0.06


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    low=st.floats(0.01, 1),
    place=st.integers(0, 1000),
)
def test_a_random_box_lies_within_its_image_and_has_the_area_that_was_asked_for(width, height, low, place):
    numbers = uniforms(0, 0, np.array([place]), Draw.CROP, DRAWS)
    box = random_boxes(np.array([width]), np.array([height]), numbers, (low, 1), (3 / 4, 4 / 3))

    if box.found[0]:
        assert 0 <= box.left[0] <= box.left[0] + box.width[0] <= width
        assert 0 <= box.top[0] <= box.top[0] + box.height[0] <= height
        # A side is rounded by half a pixel at most.
        assert (box.width[0] + 0.5) * (box.height[0] + 0.5) >= low * width * height


def test_a_shift_is_a_crop_of_the_padded_square_and_takes_every_place():
    padding, side = 2, 5
    squares = np.random.default_rng(0).integers(1, 256, (500, side, side, 3), dtype=np.uint8)

    moved = _shifted(squares, padding, uniforms(0, 0, np.arange(500), Draw.SHIFT, 2))

    padded = np.pad(squares, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    places = set()
    for image, crop in zip(padded, moved, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (side, side, 3))[:, :, 0]
        (place,) = np.argwhere((windows == crop).all((2, 3, 4))).tolist()
        places.add(tuple(place))
    assert 25 == len(places)


def test_a_shift_of_more_than_the_square_leaves_black():
    squares = np.full((50, 4, 4, 3), 255, dtype=np.uint8)

    moved = _shifted(squares, 200, uniforms(0, 0, np.arange(50), Draw.SHIFT, 2))

    assert (50, 4, 4, 3) == moved.shape
    assert moved.mean() < 20


def test_half_of_the_images_are_mirrored_and_a_share_of_them_erased():
    how = Augmenter(Augmentation(horizontal_flip=True, random_erasing=0.25), 0)
    ramp = torch.arange(8, dtype=torch.uint8)[:, None].expand(4000, 8, 8, 3).clone()
    inputs = torch.ones(4000, 8, 8, 3)

    flipped = how.change_pixels(ramp, PLACES, 0)[:, 0, 0, 0] == 7
    how.erase(inputs, PLACES, 0)

    assert 0.47 < flipped.float().mean() < 0.53
    assert 0.2 < (inputs == 0).any((1, 2, 3)).float().mean() < 0.3
    assert 0.02 * 0.2 < (inputs == 0).float().mean() < 0.33 * 0.3


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(brightened, F.adjust_brightness), (contrasted, F.adjust_contrast), (saturated, F.adjust_saturation)],
)
def test_colours_are_those_of_torchvision_to_a_level_of_rounding(ours, theirs, factor):
    images = pixels()

    changed = ours(images.permute(0, 2, 3, 1), torch.full((3,), factor)).permute(0, 3, 1, 2)
    difference = changed.int() - theirs(images, factor).int()

    assert difference.abs().max() <= 1


THEIRS = [
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
    *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
]
NAMES = dict(zip(_operations(32, 9, 1.0), THEIRS, strict=True))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_of_rand_augment_is_that_of_torchvision(name, sign):
    transform = v2.RandAugment()
    magnitudes, signed = transform._AUGMENTATION_SPACE[NAMES[name]]
    magnitude = 0.0 if magnitudes(31, 40, 40) is None else float(magnitudes(31, 40, 40)[9])
    theirs = transform._apply_image_or_video_transform(
        pixels(),
        NAMES[name],
        sign * magnitude if signed else magnitude,
        interpolation=transform.interpolation,
        fill=transform._fill,
    )

    assert (_operations(40, 9, sign)[name](pixels()).int() - theirs.int()).abs().max() <= 1


def test_mixup_mixes_inputs_and_targets_in_the_same_shares():
    labels = torch.tensor([0, 1, 2, 3])
    inputs = torch.eye(4)[:, None, None, :3].expand(4, 8, 8, 3)

    got, targets = mixed(inputs, labels, Augmentation(mixup_alpha=0.4), 4, np.random.default_rng(0))

    assert torch.allclose(got[:, 0, 0], targets[:, :3])
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert 1 < len(set(targets.diagonal().tolist()))


def test_cutmix_pastes_a_box_and_counts_its_area():
    labels = torch.tensor([0, 1, 2])
    inputs = torch.eye(3)[:, None, None].expand(3, 16, 16, 3)

    got, targets = mixed(inputs, labels, Augmentation(cutmix_alpha=1.0), 3, np.random.default_rng(1))

    assert set(got.flatten().tolist()) == {0.0, 1.0}
    assert torch.allclose(got.mean((1, 2)), targets)


def test_with_both_each_batch_takes_one_of_the_two():
    inputs, labels = torch.rand(2, 16, 16, 3), torch.tensor([0, 1])
    both = Augmentation(mixup_alpha=1.0, cutmix_alpha=1.0)
    kinds = set()
    for seed in range(20):
        got, _ = mixed(inputs, labels, both, 2, np.random.default_rng(seed))
        pasted = (got[0] == inputs[0]) | (got[0] == inputs[1])
        kinds.add(bool(pasted.all()))

    assert kinds == {True, False}
