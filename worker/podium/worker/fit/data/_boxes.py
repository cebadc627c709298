"""Random boxes: what a crop keeps, an erasing wipes out, a cutmix pastes.

Shape legend: B images.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from podium.worker.fit.data._randomness import Numbers, whole

_TRIES = 10
#: How many random numbers a box takes.
DRAWS = 4 * _TRIES
Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A box in each image, in pixels, (B,) each; `found` where one of the tries fitted."""

    left: Lengths
    top: Lengths
    width: Lengths
    height: Lengths
    found: npt.NDArray[np.bool_]


def random_boxes(
    widths: Lengths, heights: Lengths, numbers: Numbers, area: tuple[float, float], aspect: tuple[float, float]
) -> Boxes:
    """The first of ten random boxes that lies within its image, as Inception (Szegedy et al. 2015) drew them.

    Args:
        widths: of the images, (B,).
        heights: of the images, (B,).
        numbers: uniform in [0, 1), (B, DRAWS).
        area: the least and the largest share of the image's area.
        aspect: the least and the largest width / height, drawn evenly on the scale of logarithms.
    """
    share, shape, x, y = numbers.reshape(-1, 4, _TRIES).transpose(1, 0, 2)
    areas = (widths * heights)[:, None] * (area[0] + (area[1] - area[0]) * share)
    low, high = np.log(aspect)
    ratio = np.exp(low + (high - low) * shape)
    w, h = np.rint(np.sqrt(areas * ratio)), np.rint(np.sqrt(areas / ratio))
    fits = (w > 0) & (w <= widths[:, None]) & (h > 0) & (h <= heights[:, None])
    rows, first = np.arange(len(widths)), fits.argmax(1)
    width, height = w[rows, first].astype(np.int64), h[rows, first].astype(np.int64)
    return Boxes(
        left=whole(x[rows, first], widths - width + 1),
        top=whole(y[rows, first], heights - height + 1),
        width=width,
        height=height,
        found=fits[rows, first],
    )
