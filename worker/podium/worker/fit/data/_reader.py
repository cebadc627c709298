"""From places to pixels: decoding, and everything that moves pixels to other places before a flip. On the host.

What an image costs before chance comes in is kept in memory as far as that reaches: the square where nothing random
happens to its size, else the decoded image.

Shape legend: B images a batch, S side of the square, H and W of an image as decoded.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from podium.jobs.job import Cause
from podium.jobs.spec import Augmentation, Interpolation, Preprocessing, Resize
from podium.worker.fit._failures import FitError
from podium.worker.fit.data._boxes import DRAWS, random_boxes
from podium.worker.fit.data._memory import Memory
from podium.worker.fit.data._randomness import Draw, uniforms, whole
from podium.worker.fit.data._sources import Images

Pixels = npt.NDArray[np.uint8]
_FILTERS = {
    Interpolation.BILINEAR: InterpolationMode.BILINEAR,
    Interpolation.BICUBIC: InterpolationMode.BICUBIC,
}
_ASPECT = (3 / 4, 4 / 3)
_NO_AUGMENTATION = Augmentation()


class Reader:
    """Images of a source as squares of pixels. Any number of threads may read at once.

    Args:
        images: the source.
        preprocessing: how an image becomes a square.
        augmentation: how at random; None: it does not.
        seed: of chance.
        memory: what may be taken to keep images in.

    Raises:
        FitError: the side of the square is not set.
    """

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        *,
        seed: int,
        memory: Memory,
    ) -> None:
        if preprocessing.image_size is None:
            message = "preprocessing.image_size is not set; the server fills it in, submit through it"
            raise FitError(Cause.USER_CONFIG, message)
        self.side = preprocessing.image_size
        self._images = images
        self._how = preprocessing
        self._change = augmentation or _NO_AUGMENTATION
        self._seed = seed
        self._memory = memory
        self._kept: dict[int, Pixels] = {}
        self._at_least = _short_side(self.side, preprocessing, self._change)

    def fetch(self, place: int) -> Pixels:
        """One image as far as chance has no part in it: (S, S, 3), or (H, W, 3) where crops are random.

        Raises:
            DatasetError: it cannot be used; names it.
        """
        known = self._kept.get(place)
        if known is not None:
            return known
        image = self._images.image(place, at_least=self._at_least)
        if not self._change.min_crop_area:
            image = squared(image, self._how)
        pixels = np.asarray(image)
        if self._memory.take(pixels.nbytes):
            self._kept[place] = pixels
        return pixels

    def shape(self, fetched: Sequence[Pixels], places: npt.NDArray[np.int64], epoch: int | None) -> Pixels:
        """Squares, (B, S, S, 3), of what was fetched from the places, (B,), as an epoch crops them; None: uncropped."""
        if not self._change.min_crop_area:
            pixels = np.stack(fetched)
        elif epoch is None:
            pixels = np.stack([np.asarray(squared(Image.fromarray(image), self._how)) for image in fetched])
        else:
            pixels = self._cropped(fetched, uniforms(self._seed, epoch, places, Draw.CROP, DRAWS))
        if self._change.crop_padding and epoch is not None:
            pixels = _shifted(pixels, self._change.crop_padding, uniforms(self._seed, epoch, places, Draw.SHIFT, 2))
        return pixels

    def _cropped(self, fetched: Sequence[Pixels], numbers: npt.NDArray[np.float64]) -> Pixels:
        heights, widths = np.array([image.shape[:2] for image in fetched]).T
        boxes = random_boxes(widths, heights, numbers, (self._change.min_crop_area, 1), _ASPECT)
        mode = (self._how.interpolation or Interpolation.BILINEAR).name.lower()
        pixels = np.empty((len(fetched), self.side, self.side, 3), dtype=np.uint8)
        for i, image in enumerate(fetched):
            if boxes.found[i]:
                left, top = boxes.left[i], boxes.top[i]
                image = image[top : top + boxes.height[i], left : left + boxes.width[i]]
            else:
                image = _middle(image)
            # Laid out channels last and without gaps, torch's resampling takes a fifth of Pillow's time.
            crop = torch.from_numpy(image[None].copy()).permute(0, 3, 1, 2)
            square = F.interpolate(crop, size=(self.side, self.side), mode=mode, antialias=True)
            pixels[i] = square[0].permute(1, 2, 0).numpy()
        return pixels


def squared(image: Image.Image, how: Preprocessing) -> Image.Image:
    """The square that the backbone sees, of S x S pixels: the same as in the libraries' own evaluations."""
    side, interpolation = how.image_size or 0, _FILTERS[how.interpolation or Interpolation.BILINEAR]
    if how.resize is Resize.SQUASH:
        squashed: Image.Image = resize(image, [side, side], interpolation)
        return squashed
    # Rounded down, as timm does; the catalogue's shares have six digits, and torchvision's are of whole numbers.
    short = int(side / (how.crop_fraction or 1.0) + 0.01)
    cropped: Image.Image = center_crop(resize(image, [short], interpolation), [side])
    return cropped


def _middle(image: Pixels) -> Pixels:
    """The largest part around the centre of a shape that crops may have: of a panorama no box may fit otherwise."""
    height, width = image.shape[:2]
    rows, columns = min(height, round(width / _ASPECT[0])), min(width, round(height * _ASPECT[1]))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def _short_side(side: int, how: Preprocessing, change: Augmentation) -> float:
    """What a decoder must leave of an image's short side, so that nobody sees that it is reduced.

    That is twice what the whole image is scaled down to, and enough for the smallest crop not to be enlarged.
    """
    if change.min_crop_area:
        return side * max(2.0, 1 / math.sqrt(change.min_crop_area))
    return 2 * side / (how.crop_fraction or 1.0)


def _shifted(pixels: Pixels, padding: int, numbers: npt.NDArray[np.float64]) -> Pixels:
    """Each square, padded with black, cropped to its size again somewhere: moved by up to the padding."""
    moved = np.zeros_like(pixels)
    side = pixels.shape[1]
    for target, source, (down, right) in zip(moved, pixels, whole(numbers, 2 * padding + 1) - padding, strict=True):
        rows, columns = max(side - abs(down), 0), max(side - abs(right), 0)
        to_row, to_column, row, column = max(down, 0), max(right, 0), max(-down, 0), max(-right, 0)
        target[to_row : to_row + rows, to_column : to_column + columns] = source[
            row : row + rows, column : column + columns
        ]
    return moved
