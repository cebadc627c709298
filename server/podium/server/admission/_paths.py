"""Paths in a spec: hostile until they are found to lie within the allowed roots."""

from collections.abc import Sequence
from pathlib import Path

from podium.server.admission._findings import Findings


def check_path(field: str, text: str, roots: Sequence[str], findings: Findings) -> bool:
    """Whether a path is absolute, within a root, links followed, and there; tells the findings where it is not.

    What lies outside the roots is not looked at, so that nobody learns from the answer whether it exists.
    """
    if not text.isprintable() or not Path(text).is_absolute():
        findings.invalid(field, f"{text!a} is not an absolute path; begin with / and one of {_named(roots)}")
        return False
    try:
        real = Path(text).resolve()
        inside = any(real.is_relative_to(Path(root).resolve()) for root in roots)
        exists = inside and real.exists()
    except (OSError, RuntimeError) as error:
        findings.invalid(field, f"{text} cannot be read by the server ({type(error).__name__}); check its permissions")
        return False
    if not inside:
        findings.invalid(field, f"{text} lies outside the allowed roots; move it into {_named(roots)}")
    elif not exists:
        findings.missing(field, f"{text} does not exist on the server; check the path", reason="PATH_NOT_FOUND")
    return inside and exists


def _named(roots: Sequence[str]) -> str:
    if not roots:
        return "a root, of which this server has none: start it with PODIUM_DATA_ROOTS"
    return " or ".join(roots)
