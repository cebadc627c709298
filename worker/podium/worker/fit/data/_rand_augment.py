"""RandAugment (Cubuk et al. 2020) on a batch, with the operations and strengths of torchvision.

The images that drew the same operation are changed together.

Shape legend: B images a batch, S side of the square.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from podium.worker.fit.data._color import brightened, contrasted, saturated
from podium.worker.fit.data._randomness import Numbers, whole

_BINS = 31
#: How many random numbers an operation takes.
DRAWS = 2
Operation = Callable[[Tensor], Tensor]


def rand_augment(pixels: Tensor, numbers: Numbers, magnitude: int) -> Tensor:
    """Pixels, (B, S, S, 3) uint8, after as many operations as there are numbers for.

    Args:
        pixels: the images.
        numbers: uniform in [0, 1), (B, operations x DRAWS).
        magnitude: from 0 to 30.
    """
    positive, negative = (tuple(_operations(pixels.shape[1], magnitude, sign).values()) for sign in (1.0, -1.0))
    operations = positive + negative
    for which, sign in numbers.reshape(len(numbers), -1, DRAWS).transpose(1, 2, 0):
        drawn = whole(which, len(positive)) + len(positive) * (sign < 0.5)
        order = np.argsort(drawn, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(drawn[order])) + 1)
        changed = [_changed(pixels, rows, operations[drawn[rows[0]]]) for rows in groups]
        pixels = torch.cat(changed).index_select(0, torch.from_numpy(np.argsort(order)).to(pixels.device))
    return pixels


def _changed(pixels: Tensor, rows: npt.NDArray[np.int64], operation: Operation) -> Tensor:
    chosen = pixels.index_select(0, torch.from_numpy(rows).to(pixels.device))
    return operation(chosen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _operations(side: int, magnitude: int, sign: float) -> dict[str, Operation]:
    """The operations by name, always in one order, with the strength that the magnitude gives each."""
    strength = magnitude / (_BINS - 1)
    shear = math.degrees(math.atan(sign * 0.3 * strength))
    shift = int(sign * 150 / 331 * side * strength)
    factor = 1 + sign * 0.9 * strength
    return {
        "identity": lambda pixels: pixels,
        "shear_x": partial(_affine, shear=(shear, 0.0)),
        "shear_y": partial(_affine, shear=(0.0, shear)),
        "translate_x": partial(_affine, translate=(shift, 0)),
        "translate_y": partial(_affine, translate=(0, shift)),
        "rotate": lambda pixels: F.rotate(pixels, sign * 30 * strength),
        "brightness": partial(_with_factor, brightened, factor),
        "color": partial(_with_factor, saturated, factor),
        "contrast": partial(_with_factor, contrasted, factor),
        "sharpness": lambda pixels: F.adjust_sharpness(pixels, factor),
        "posterize": lambda pixels: F.posterize(pixels, 8 - round(4 * strength)),
        "solarize": lambda pixels: F.solarize(pixels, 255 * (1 - strength)),
        "auto_contrast": F.autocontrast,
        "equalize": F.equalize,
    }


def _affine(pixels: Tensor, shear: tuple[float, float] = (0.0, 0.0), translate: tuple[int, int] = (0, 0)) -> Tensor:
    # Sheared about the corner, as the paper's own code does.
    center = [0.0, 0.0] if any(shear) else None
    moved: Tensor = F.affine(pixels, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear), center=center)
    return moved


def _with_factor(change: Callable[[Tensor, Tensor], Tensor], factor: float, pixels: Tensor) -> Tensor:
    factors = torch.full((len(pixels),), factor, device=pixels.device)
    return change(pixels.permute(0, 2, 3, 1), factors).permute(0, 3, 1, 2)
