"""What chance does to a batch of squares, on the device: flips, RandAugment and colours on pixels, erasing on inputs.

Shape legend: B images a batch, S side of the square.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from podium.jobs.spec import Augmentation
from podium.worker.fit.data import _boxes, _rand_augment
from podium.worker.fit.data._boxes import Boxes, random_boxes
from podium.worker.fit.data._color import brightened, contrasted, saturated
from podium.worker.fit.data._randomness import Draw, Numbers, uniforms

Places = npt.NDArray[np.int64]
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 3.3)


class Augmenter:
    """The random changes of an augmentation that keep pixels where they are, but for flips and RandAugment."""

    def __init__(self, how: Augmentation, seed: int) -> None:
        self._how = how
        self._seed = seed

    def change_pixels(self, pixels: Tensor, places: Places, epoch: int) -> Tensor:
        """Pixels, (B, 3, S, S) uint8 on the device, of the images at the places, (B,), as an epoch has them."""
        how = self._how
        if how.horizontal_flip:
            _flip(pixels, self._numbers(Draw.FLIP, places, epoch, 1)[:, 0] < 0.5)
        if how.rand_augment:
            numbers = self._numbers(Draw.OPERATION, places, epoch, how.rand_augment * _rand_augment.DRAWS)
            pixels = _rand_augment.rand_augment(pixels, numbers, how.rand_augment_magnitude)
        if how.color_jitter:
            changes = 1 + how.color_jitter * (2 * self._numbers(Draw.JITTER, places, epoch, 3) - 1)
            factors = torch.from_numpy(changes).float().to(pixels.device)
            for number, change in enumerate((brightened, contrasted, saturated)):
                pixels = change(pixels, factors[:, number])
        return pixels

    def erase(self, inputs: Tensor, places: Places, epoch: int) -> None:
        """Sets a random box of some inputs, (B, 3, S, S), to the mean of all images, which is 0, in place."""
        if not self._how.random_erasing:
            return
        numbers = self._numbers(Draw.ERASE, places, epoch, 1 + _boxes.DRAWS)
        sides = np.full(len(places), inputs.shape[-1])
        boxes = random_boxes(sides, sides, numbers[:, 1:], _ERASED_AREA, _ERASED_ASPECT)
        erased = inside(boxes, inputs.shape[-1], inputs.device)
        chosen = torch.from_numpy(boxes.found & (numbers[:, 0] < self._how.random_erasing)).to(inputs.device)
        inputs.masked_fill_(erased & chosen.view(-1, 1, 1, 1), 0.0)

    def _numbers(self, draw: Draw, places: Places, epoch: int, count: int) -> Numbers:
        return uniforms(self._seed, epoch, places, draw, count)


def inside(boxes: Boxes, side: int, device: torch.device) -> Tensor:
    """Where the boxes are in squares of a side: (B, 1, S, S) bool."""
    edges = np.stack((boxes.left, boxes.left + boxes.width, boxes.top, boxes.top + boxes.height))
    left, right, top, bottom = torch.from_numpy(edges).to(device)[:, :, None]
    line = torch.arange(side, device=device)
    columns, rows = (left <= line) & (line < right), (top <= line) & (line < bottom)
    inner: Tensor = rows[:, None, :, None] & columns[:, None, None, :]
    return inner


def _flip(pixels: Tensor, flags: npt.NDArray[np.bool_]) -> None:
    chosen = torch.from_numpy(np.flatnonzero(flags)).to(pixels.device)
    pixels[chosen] = pixels[chosen].flip(-1)
