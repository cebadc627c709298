"""From bytes that anybody may have written to an RGB image.

An image is judged by its header before a pixel is decoded. Of an animation the first frame counts; the camera's
orientation is applied; transparency lies on white; 16 bits become the upper 8.
"""

import io
import math

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from podium.jobs.datasets import Entry, ImageError, read_bytes

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
#: From here on Pillow warns of a bomb.
_MAX_PIXELS = 89_478_485
_MAX_ASPECT = 100


#: What the camera noted -> what sets its image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(entry: Entry, at_least: float = math.inf) -> Image.Image:
    """The image of an entry, in RGB.

    Args:
        entry: which bytes.
        at_least: the short side, in pixels, that is wanted: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that
            leaves so much.

    Raises:
        ImageError: it cannot be read, is no whole image, or is of a size that no photo has; names the file.
    """
    data = read_bytes(entry)
    where = entry.where
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, where)
            turn = _turn(image)
            reduced = _reduced(image, at_least)
            return _rgb(reduced if turn is None else reduced.transpose(turn))
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{where} has more than {_MAX_PIXELS} pixels; make it smaller") from None
    except UnidentifiedImageError:
        known = f"neither {', '.join(_FORMATS[:-1])} nor {_FORMATS[-1]}"
        raise ImageError(f"{where} is no readable image: {known}") from None
    except Exception as error:  # whatever a parser trips over in bytes made to trip it
        raise ImageError(f"{where} is no readable image: {error}") from error


def _check_size(image: Image.Image, where: str) -> None:
    size = f"{image.width} x {image.height} pixels"
    if image.width * image.height > _MAX_PIXELS:
        raise ImageError(f"{where} has {size}; make it smaller")
    if max(image.size) > _MAX_ASPECT * min(image.size):
        # Its short side is scaled up to the model's input, and the long one with it.
        raise ImageError(f"{where} has {size}; remove it, it is a line")


def _reduced(image: Image.Image, at_least: float) -> Image.Image:
    scale = min(8, int(min(image.size) / at_least))
    # Rounded down to a power of two by the decoder; nothing where the format has no such sizes.
    done = image.draft("RGB", (image.width // scale, image.height // scale)) if scale >= 2 else None
    if done is None or done[1][2:] == image.size:
        return image
    # The last row and column hold less than the others, by which all that is in between would be moved.
    _, box = done
    return image.resize((round(box[2]), round(box[3])), Image.Resampling.BILINEAR, box)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # notes that cannot be read say nothing of the pixels
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
