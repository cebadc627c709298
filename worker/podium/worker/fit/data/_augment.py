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
        """Pixels, (B, S, S, 3) uint8 on the device, of the images at the places, (B,), as an epoch has them."""
        how = self._how
        if how.horizontal_flip:
            pixels = _flipped(pixels, self._numbers(Draw.FLIP, places, epoch, 1)[:, 0] < 0.5)
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
        """Sets a random box of some inputs, (B, S, S, 3), to the mean of all images, which is 0, in place."""
        if not self._how.random_erasing:
            return
        numbers = self._numbers(Draw.ERASE, places, epoch, 1 + _boxes.DRAWS)
        sides = np.full(len(places), inputs.shape[1])
        boxes = random_boxes(sides, sides, numbers[:, 1:], _ERASED_AREA, _ERASED_ASPECT)
        chosen = torch.from_numpy(boxes.found & (numbers[:, 0] < self._how.random_erasing)).to(inputs.device)
        inputs.masked_fill_(inside(boxes, inputs.shape[1], inputs.device) & chosen.view(-1, 1, 1, 1), 0.0)

    def _numbers(self, draw: Draw, places: Places, epoch: int, count: int) -> Numbers:
        return uniforms(self._seed, epoch, places, draw, count)


def inside(boxes: Boxes, side: int, device: torch.device) -> Tensor:
    """Where the boxes are in squares of a side: (B, S, S, 3) bool."""
    edges = np.stack((boxes.left, boxes.left + boxes.width, boxes.top, boxes.top + boxes.height))
    left, right, top, bottom = torch.from_numpy(edges).to(device)[:, :, None]
    line = torch.arange(side, device=device)
    # Each column three times, once for each channel: what is laid out like the pixels is combined with them fastest.
    columns, rows = ((left <= line) & (line < right)).repeat_interleave(3, 1), (top <= line) & (line < bottom)
    inner: Tensor = rows[:, :, None] & columns[:, None, :]
    return inner.view(-1, side, side, 3)


def _flipped(pixels: Tensor, flags: npt.NDArray[np.bool_]) -> Tensor:
    rows = np.flatnonzero(flags)
    order = np.arange(len(flags))
    order[rows] = len(flags) + np.arange(len(rows))
    chosen = pixels.index_select(0, torch.from_numpy(rows).to(pixels.device))
    # torch has a quick way for images whose channels come last, told as such.
    mirrored = chosen.permute(0, 3, 1, 2).flip(-1).permute(0, 2, 3, 1)
    # Writing into some rows takes torch ten times as long as choosing among all.
    return torch.cat((pixels, mirrored)).index_select(0, torch.from_numpy(order).to(pixels.device))
