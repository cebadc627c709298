"""Paths and URIs in a spec: hostile until they are found to lie within what the server allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.jobs.locations import is_uri, local_path, uri_problem, within
from podium.server.admission._findings import Findings


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a spec may point to."""

    roots: Sequence[str]
    uri_prefixes: Sequence[str]

    def check(self, field: str, location: str, findings: Findings) -> bool:
        """Whether a path or a URI may be read and, if it is a path, is there; tells the findings where it is not.

        Nobody looks whether a URI is there: the server need not have the credentials that the workers have.
        """
        if is_uri(location):
            return self._check_uri(field, location, findings)
        return self.check_path(field, local_path(location), findings)

    def check_path(self, field: str, text: str, findings: Findings) -> bool:
        """Whether a path is absolute, within a root, links followed, and there; tells the findings where it is not.

        What lies outside the roots is not looked at, so that nobody learns from the answer whether it exists.
        """
        if not text.isprintable() or not Path(text).is_absolute():
            findings.invalid(field, f"{text!a} is not an absolute path; begin with / and one of {self._named_roots()}")
            return False
        try:
            real = Path(text).resolve()
            inside = any(real.is_relative_to(Path(root).resolve()) for root in self.roots)
            exists = inside and real.exists()
        except (OSError, RuntimeError) as error:
            what = f"cannot be read by the server ({type(error).__name__}); check its permissions"
            findings.invalid(field, f"{text} {what}")
            return False
        if not inside:
            findings.invalid(field, f"{text} lies outside the allowed roots; move it into {self._named_roots()}")
        elif not exists:
            findings.missing(field, f"{text} does not exist on the server; check the path", reason="PATH_NOT_FOUND")
        return inside and exists

    def _check_uri(self, field: str, uri: str, findings: Findings) -> bool:
        if (problem := uri_problem(uri)) is not None:
            findings.invalid(field, f"{uri!a} {problem}")
        elif not within(uri, self.uri_prefixes):
            findings.invalid(field, f"{uri} lies below no URI that this server allows; {self._named_prefixes()}")
        else:
            return True
        return False

    def _named_roots(self) -> str:
        if not self.roots:
            return "a root, of which this server has none: start it with PODIUM_DATA_ROOTS"
        return " or ".join(self.roots)

    def _named_prefixes(self) -> str:
        if not self.uri_prefixes:
            return "it allows none: start it with PODIUM_URI_PREFIXES, such as s3://bucket/images"
        return f"use {' or '.join(self.uri_prefixes)}, or start it with more PODIUM_URI_PREFIXES"
