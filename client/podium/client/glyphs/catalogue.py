# ruff: noqa: RUF001 - lookalikes are what this file is about
"""What the glyph set shows: the characters that are its classes, and the faces that draw them.

Everything here is plain data; reading it needs neither Pillow nor a font package.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# One line per family of lookalikes, so that a prefix of the list is already a hard problem.
# Characters that most faces draw alike (Latin A, Greek Alpha, Cyrillic A) appear once only: no
# learner and no human could tell them apart, and top-k would then measure nothing but the tie.
_FAMILIES = (
    "0OoQθσöøð",
    "1lI|!ł",
    "5Ssš$",
    "2Zzž",
    "8Bßβ&",
    "6бG9gq",
    "3зэε",
    "4чЦ",
    "Ccçeë",
    "aäåæ@αд",
    "Dđdbь",
    "EΣFfГ",
    "hnñηп",
    "mтMwWωш",
    "ΛЛЖKкΞ",
    "NИUuüµ",
    "PþpRЯя",
    "TtJj7",
    "VvYyýγ",
    "XxχA",
    "Фφψ",
)

GLYPHS: tuple[str, ...] = tuple(dict.fromkeys("".join(_FAMILIES)))
"""The characters of the set, one class each, lookalikes next to each other."""


@dataclass(frozen=True)
class Face:
    """One face: a font file inside an installed package, at one weight.

    Attributes:
        package: Import name of the package that ships the file.
        file: Name of the file below the package's ``files`` folder.
        weight: Value of the file's ``wght`` axis (100 thin to 900 black), or None for a file
            without axes.
    """

    package: str
    file: str
    weight: int | None = None


FACES: tuple[Face, ...] = (
    Face("fontpkg_caveat", "Caveat[wght].ttf", 500),
    Face("fontpkg_caveat", "Caveat[wght].ttf", 700),
    Face("fontpkg_comfortaa", "Comfortaa[wght].ttf", 400),
    Face("fontpkg_comfortaa", "Comfortaa[wght].ttf", 700),
    Face("fontpkg_eb_garamond", "EBGaramond[wght].ttf", 400),
    Face("fontpkg_eb_garamond", "EBGaramond[wght].ttf", 800),
    Face("fontpkg_eb_garamond", "EBGaramond-Italic[wght].ttf", 500),
    Face("fontpkg_jetbrains_mono", "JetBrainsMono[wght].ttf", 300),
    Face("fontpkg_jetbrains_mono", "JetBrainsMono[wght].ttf", 700),
    Face("fontpkg_jetbrains_mono", "JetBrainsMono-Italic[wght].ttf", 500),
    Face("fontpkg_lobster", "Lobster-Regular.ttf"),
    Face("fontpkg_press_start_2p", "PressStart2P-Regular.ttf"),
    Face("fontpkg_roboto_slab", "RobotoSlab[wght].ttf", 300),
    Face("fontpkg_roboto_slab", "RobotoSlab[wght].ttf", 800),
    Face("fontpkg_sofia_sans", "SofiaSans[wght].ttf", 400),
    Face("fontpkg_sofia_sans", "SofiaSans[wght].ttf", 900),
    Face("fontpkg_sofia_sans", "SofiaSans-Italic[wght].ttf", 500),
    Face("fontpkg_vollkorn", "Vollkorn[wght].ttf", 400),
    Face("fontpkg_vollkorn", "Vollkorn[wght].ttf", 900),
    Face("fontpkg_vollkorn", "Vollkorn-Italic[wght].ttf", 500),
)
"""The faces the set is drawn with: serif, slab, sans, mono, pixel and hand-written."""

PACKAGES: tuple[str, ...] = ("pillow", "numpy", *dict.fromkeys(face.package for face in FACES))
"""The distributions whose versions decide the pixels."""


def class_name(character: str) -> str:
    """Folder name of a class, safe on every file system and distinct without regard to case.

    Args:
        character: One character of ``GLYPHS``.

    Returns:
        The code point and the Unicode name, such as ``u0041_latin_capital_letter_a``.
    """
    name = re.sub(r"[^a-z0-9]+", "_", unicodedata.name(character).lower())
    return f"u{ord(character):04x}_{name}"


def class_names(classes: int | None = None) -> list[str]:
    """Folder names of the first classes of the set, in the order of ``GLYPHS``.

    Args:
        classes: How many, 2 up to ``len(GLYPHS)``; None for all.

    Returns:
        The names. An ImageFolder reader sorts them, so its label order is another one.
    """
    return [class_name(character) for character in select(classes)]


def select(classes: int | None) -> tuple[str, ...]:
    """The first characters of the set.

    Args:
        classes: How many, 2 up to ``len(GLYPHS)``; None for all.

    Returns:
        The characters.

    Raises:
        ValueError: For a number of classes out of that range.
    """
    if classes is None:
        return GLYPHS
    if not 2 <= classes <= len(GLYPHS):
        raise ValueError(f"classes must be between 2 and {len(GLYPHS)}, not {classes}")
    return GLYPHS[:classes]
