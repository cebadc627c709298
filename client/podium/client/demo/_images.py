"""Which images the demo uses: the user's, or a set that it renders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from podium.jobs.errors import FieldViolation, InvalidSpecError
from podium.jobs.spec import ImageFolder

_VAL_NAMES = ("val", "validation", "valid")


def images_at(path: Path) -> ImageFolder:
    """The splits of a folder with `train`, of a folder of class folders, or of a .tar of class folders.

    Raises:
        InvalidSpecError: it is none of these.
    """
    path = path.absolute()
    if path.is_file() and path.suffix == ".tar":
        return ImageFolder(train=str(path), val_fraction=0.2)
    if not path.is_dir():
        raise _wrong(f"{path} is neither a folder nor a .tar file")
    if (train := _split(path, "train")) is None:
        if not any(child.is_dir() for child in path.iterdir()):
            raise _wrong(
                f"{path} has no folders in it; give one folder a class, or train and test with one a class each"
            )
        return ImageFolder(train=str(path), val_fraction=0.2)
    val = next((found for name in _VAL_NAMES if (found := _split(path, name))), "")
    return ImageFolder(train=train, val=val, test=_split(path, "test") or "")


def rendered(directory: Path, on_progress: Callable[[int, int], None]) -> ImageFolder:
    """The glyph set, rendered unless it is there already.

    Raises:
        ImportError: the packages that carry the fonts are missing.
    """
    from podium.client.glyphs import render_glyphs

    return images_at(render_glyphs(directory, on_progress=on_progress))


def _split(folder: Path, name: str) -> str | None:
    for candidate in (folder / name, folder / f"{name}.tar"):
        if candidate.exists():
            return str(candidate)
    return None


def _wrong(description: str) -> InvalidSpecError:
    return InvalidSpecError([FieldViolation(field="--data", description=description)])
