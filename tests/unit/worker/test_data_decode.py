"""Bytes that anybody may have written: what they become, and which are refused."""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageOps

from podium.jobs.datasets import DatasetError, index
from podium.worker.fit.data import IndexedImages


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

    with pytest.raises(DatasetError, match=rf"a/1\.png .*{told}"):
        IndexedImages(index(str(tmp_path))).image(0)


def only_image(tmp_path: Path, content: bytes, at_least: float = math.inf) -> npt.NDArray[np.uint8]:
    """Its pixels, (H, W, 3)."""
    (tmp_path / "a").mkdir(exist_ok=True)
    (tmp_path / "a" / "1.png").write_bytes(content)
    return np.asarray(IndexedImages(index(str(tmp_path))).image(0, at_least=at_least))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_images_of_every_mode_become_three_channels(tmp_path, mode):
    content = encoded(Image.new(mode, (40, 50)), "JPEG" if mode == "CMYK" else "PNG")

    assert only_image(tmp_path, content).shape == (50, 40, 3)


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

    assert [255, 0, 0] == only_image(tmp_path, content)[0, 0].tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_camera_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(PHOTO, "PNG", exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))

    assert np.array_equal(upright, only_image(tmp_path, content))


def test_notes_of_a_camera_that_make_no_sense_change_nothing(tmp_path):
    content = encoded(PHOTO, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\xff\xff\xff\xff")

    assert np.array_equal(np.asarray(PHOTO), only_image(tmp_path, content))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("size", [(1500, 1000), (1501, 1001), (1503, 1003)])
def test_a_large_photo_is_decoded_at_a_part_of_its_size_and_looks_the_same(size, orientation, tmp_path):
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    waves = 127 + 90 * np.stack([np.sin(columns / 40), np.cos(rows / 30), np.sin((columns + rows) / 50)], axis=-1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(Image.fromarray(waves.astype(np.uint8)), "JPEG", quality=95, exif=exif)

    found = only_image(tmp_path, content, at_least=200)

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert [round(length / 4) for length in upright.size] == [found.shape[1], found.shape[0]]
    shape = (120, 80) if orientation < 5 else (80, 120)
    seen, expected = (
        np.asarray(image.resize(shape, Image.Resampling.BICUBIC), dtype=float)
        for image in (Image.fromarray(found), upright)
    )
    assert np.abs(seen - expected).max() <= 3
