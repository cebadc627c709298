"""Draws one glyph picture: a character in a scene, put out of shape, light and focus.

The only module of the package that imports Pillow and numpy; it is itself imported late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from podium.client.glyphs.catalogue import FACES, GLYPHS, Face

Pixels = npt.NDArray[np.float32]
Random = np.random.Generator

# Glyphs are set at one size and scaled by the warp: instantiating a variable face per size
# would cost more than the whole rest of the picture.
_CANVAS = 192
_FONT_SIZE = 118  # pixels per em
_NO_CHARACTER = "\U0010fffe"  # a non-character, so every face answers with its .notdef box
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# How hard the set is, tuned with a linear head on frozen EfficientNet-Lite0 features. Stains, scratches
# and neighbours each cost it several points, turning and tilting next to nothing.
_CONTRAST = (0.65, 0.95)  # how much darker than the paper the ink is
_SCALE = (1.2, 1.5)  # of _FONT_SIZE on _CANVAS
_STRETCH = (0.85, 1.18)  # height to width
_TURN = 10.0  # degrees
_SHEAR = 0.1
_TILT = 0.0008  # perspective, per canvas pixel
_SHIFT = 0.03  # of the canvas
_BLUR = (0.0, 0.6)  # pixels, of a 96-pixel picture
_NOISE = (0.0, 6.0)  # levels of 255
_SHADE = 0.2  # at most, of the contrast, from rim to rim
_STAINS = 0.03  # at most, of the contrast
_SCRATCHED = 0.15  # chance of a scratch
_BLOTTED = 0.25  # chance of a blot
_NEIGHBOURS = 0.1  # chance of each of the two neighbours
_GAP = (0.15, 0.35)  # between neighbours, of the font size


def draw_glyph(character: str, entropy: Sequence[int], size: int) -> Image.Image:
    """Draws one picture of a character.

    Args:
        character: One character of ``GLYPHS``.
        entropy: Non-negative numbers that decide everything random about the picture.
        size: Side of the picture in pixels.

    Returns:
        A square RGB picture.
    """
    rng = np.random.default_rng(entropy)
    shape = _warp(_letters(character, rng), rng).resize((size, size), Image.Resampling.BOX)
    paper, ink, contrast = _colours(rng)
    coverage = np.asarray(shape, dtype=np.float32)[..., None] / 255
    scene = paper + _texture(rng, size, contrast)
    scene += coverage * (ink - paper) * rng.uniform(0.85, 1.0)
    picture = Image.fromarray(_clip(scene))
    _clutter(picture, rng)
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(*_BLUR) * size / 96))
    noise = rng.standard_normal((size, size, 3), dtype=np.float32) * rng.uniform(*_NOISE)
    return Image.fromarray(_clip(np.asarray(picture, dtype=np.float32) + noise))


@cache
def faces_of(character: str) -> tuple[Face, ...]:
    """The faces that draw a character as nothing else of the set.

    Args:
        character: One character of ``GLYPHS``.

    Returns:
        The faces, without those that lack the character and would show an empty space or a
        box, and those that draw it as an earlier one of ``GLYPHS`` (cursive Cyrillic te as m).
    """
    return tuple(face for face in FACES if character in _repertoire(face))


@cache
def _repertoire(face: Face) -> frozenset[str]:
    """The characters that a face draws with ink and each in another shape."""
    font = _font(face)
    owners: dict[tuple[tuple[int, int], bytes], str] = {}
    for character in (_NO_CHARACTER, *GLYPHS):
        mask = font.getmask(character)
        owners.setdefault((mask.size, bytes(mask)), character)
    return frozenset(c for (_, ink), c in owners.items() if any(ink)) - {_NO_CHARACTER}


@cache
def _font(face: Face) -> ImageFont.FreeTypeFont:
    with as_file(files(face.package) / "files" / face.file) as path:
        # Basic layout: the other engine is not in every build of Pillow.
        font = ImageFont.truetype(path, _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    if face.weight is not None:
        font.set_variation_by_axes([face.weight])
    return font


def _letters(character: str, rng: Random) -> Image.Image:
    """The character in the middle of a mask, perhaps cut out of a line of others."""
    faces = faces_of(character)
    face = faces[rng.integers(len(faces))]
    font = _font(face)
    mask = Image.new("L", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(mask)
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    x, y = (_CANVAS - left - right) / 2, (_CANVAS - top - bottom) / 2
    draw.text((x, y), character, fill=255, font=font, anchor="ls")
    gap = rng.uniform(*_GAP) * _FONT_SIZE
    for edge, anchor in ((x + left - gap, "rs"), (x + right + gap, "ls")):
        neighbour = GLYPHS[rng.integers(len(GLYPHS))]
        if rng.random() < _NEIGHBOURS and face in faces_of(neighbour):
            draw.text((edge, y), neighbour, fill=255, font=font, anchor=anchor)
    return mask


def _warp(mask: Image.Image, rng: Random) -> Image.Image:
    """Turns, shears, tilts, scales and shifts a mask about its middle."""
    turn, shear = math.radians(rng.uniform(-_TURN, _TURN)), rng.uniform(-_SHEAR, _SHEAR)
    zoom = 1 / rng.uniform(*_SCALE)  # Pillow maps the result's pixels back to the source's
    stretch = rng.uniform(*_STRETCH)
    middle = _CANVAS / 2
    to_middle = np.array([[1, 0, middle], [0, 1, middle], [0, 0, 1]])
    shift = rng.uniform(-_SHIFT, _SHIFT, 2) * _CANVAS
    from_middle = np.array([[1, 0, -middle - shift[0]], [0, 1, -middle - shift[1]], [0, 0, 1]])
    cos, sin = math.cos(turn) * zoom, math.sin(turn) * zoom
    tilt = rng.uniform(-_TILT, _TILT, 2)
    bend = np.array([[cos * stretch, shear - sin, 0], [sin, cos, 0], [*tilt, 1]])
    matrix = to_middle @ bend @ from_middle
    data = (matrix / matrix[2, 2]).ravel()[:8]
    return mask.transform(mask.size, Image.Transform.PERSPECTIVE, data.tolist(), Image.Resampling.BICUBIC)


def _colours(rng: Random) -> tuple[Pixels, Pixels, float]:
    """Paper and darker ink of any hue, and the brightness between them in levels."""
    paper, tint = _colour(rng), _colour(rng)
    luma = float(paper @ _LUMA)
    contrast = luma * rng.uniform(*_CONTRAST)
    return paper, tint + np.float32(luma - contrast - float(tint @ _LUMA)), contrast


def _colour(rng: Random) -> Pixels:
    """A muted colour, in levels of red, green and blue."""
    hue, saturation, value = rng.random(), rng.uniform(0.0, 0.5), rng.uniform(0.55, 1.0)
    return np.array(hsv_to_rgb(hue, saturation, value), dtype=np.float32) * 255


def _texture(rng: Random, size: int, contrast: float) -> Pixels:
    """Light falling off across the paper, and stains on it; both weaker than the ink."""
    angle = rng.uniform(0, 2 * math.pi)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    slope = math.cos(angle) * axis[:, None] + math.sin(angle) * axis[None, :]
    stains = sum(_stains(rng, size, cells) for cells in rng.integers((2, 8), (8, 33)))
    light = slope * rng.uniform(0, _SHADE) + stains * rng.uniform(0, _STAINS)
    return np.asarray(light * contrast, dtype=np.float32)[..., None]


def _stains(rng: Random, size: int, cells: int) -> Pixels:
    """Smooth noise of about unit strength, in so many spots a side."""
    spots = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(spots.resize((size, size), Image.Resampling.BICUBIC))


def _clutter(picture: Image.Image, rng: Random) -> None:
    """Perhaps a scratch across a picture, perhaps a blot at its rim."""
    draw = ImageDraw.Draw(picture)
    size = picture.width
    if rng.random() < _SCRATCHED:
        ends = [float(value) for value in rng.uniform(-0.1, 1.1, 4) * size]
        draw.line(ends, fill=_fill(rng), width=int(rng.integers(1, 3)))
    if rng.random() < _BLOTTED:
        angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.03, 0.12) * size
        x, y = (size / 2 + 0.55 * size * f(angle) for f in (math.cos, math.sin))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_fill(rng))


def _fill(rng: Random) -> tuple[int, int, int]:
    red, green, blue = _colour(rng).astype(int).tolist()
    return red, green, blue


def _clip(pixels: Pixels) -> npt.NDArray[np.uint8]:
    return np.clip(pixels, 0, 255).astype(np.uint8)
