"""A set of easily confused glyphs, rendered for the demo from installed fonts."""

from podium.client.glyphs.catalogue import FACES, GLYPHS, Face, class_name, class_names
from podium.client.glyphs.render import MARKER, PerClass, render_glyphs

__all__ = [
    "FACES",
    "GLYPHS",
    "MARKER",
    "Face",
    "PerClass",
    "class_name",
    "class_names",
    "render_glyphs",
]
