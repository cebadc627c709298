"""Where bytes lie: paths, and URIs of any file system that fsspec knows.

fsspec is imported only when a URI is met: whoever reads paths alone need not have it.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PLAIN_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s?#\\]*")
_FILE = "file://"
#: What file systems call their mark of a change, the surest first.
_MARKS = ("ETag", "etag", "Content-MD5", "Last-Modified", "LastModified", "mtime", "updated")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A file that is open for reading, its size in bytes, and what changes when it changes."""

    file: IO[bytes]
    size: int
    mark: int | str
    """Of a path the time of its last change in nanoseconds; of a URI whatever its file system offers."""


def is_uri(location: str) -> bool:
    """Whether it is a URI; `file://` is another way to write a path, and no URI here."""
    return _URI.match(location) is not None and not location.startswith(_FILE)


def local_path(location: str) -> str:
    """The path of a location that is no URI."""
    return location.removeprefix(_FILE)


def uri_problem(uri: str) -> str | None:
    """What is wrong with the shape of a URI, as the end of a sentence; None: nothing.

    A shape that passes means one place to every reader: no query, no chain of file systems, no way up.
    """
    if _PLAIN_URI.fullmatch(uri) is None or not uri.isprintable():
        return "is no URI as it must be here: a scheme in small letters, ://, and a place without spaces, ?, # and \\"
    if "@" in uri.partition("://")[2].partition("/")[0]:
        return "names a user or a password, which whoever sees the job would see; give the workers their credentials"
    if "::" in uri:
        return "chains file systems with ::, which is not allowed; name one place"
    plain = uri
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    if any(part in (".", "..") for part in re.split(r"[/\\]", plain)):
        return "has a . or .. in its path; write the place out"
    return None


def within(uri: str, prefixes: Sequence[str]) -> bool:
    """Whether a URI is one of the prefixes or lies below one: `s3://bucket/a` holds `s3://bucket/a/b`, not `…/ab`."""
    return any(uri == prefix or uri.startswith(f"{prefix.removesuffix('/')}/") for prefix in prefixes)


def chunks(uri: str, size: int) -> Iterator[bytes]:
    """The bytes of a URI, so many at a time.

    Raises:
        OSError: it cannot be read; of whatever kind the file system's own error was.
    """
    system, path = _connected(uri)
    with _as_os_error(uri), system.open(path, "rb") as file:
        while chunk := file.read(size):
            yield bytes(chunk)


@contextmanager
def opened(location: str) -> Iterator[Opened]:
    """The file at a path or URI, open for reading.

    Raises:
        OSError: it cannot be opened; of whatever kind the file system's own error was.
    """
    if not is_uri(location):
        with Path(local_path(location)).open("rb") as file:
            status = os.fstat(file.fileno())
            yield Opened(file=file, size=status.st_size, mark=status.st_mtime_ns)
        return
    system, path = _connected(location)
    with _as_os_error(location):
        about = system.info(path)
        if about.get("size") is None:
            raise OSError(f"the file system of {location} does not tell its size")
        mark = next((str(about[name]) for name in _MARKS if about.get(name)), None) or str(system.ukey(path))
        remote = system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
    with remote:
        reader = _Remote(remote, location)
        yield Opened(file=reader, size=int(about["size"]), mark=mark)  # type: ignore[arg-type]  # all that readers call


def read_range(location: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`; fewer where the file ends before.

    Raises:
        OSError: it cannot be read.
    """
    if not is_uri(location):
        with Path(local_path(location)).open("rb") as file:
            file.seek(offset)
            return file.read(size)
    if not size:
        return b""
    system, path = _connected(location)
    with _as_os_error(location):
        return bytes(system.cat_file(path, start=offset, end=offset + size))


class _Remote:
    """A remote file whose errors are OSErrors."""

    def __init__(self, file: Any, location: str) -> None:
        self._file = file
        self._location = location
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        with _as_os_error(self._location):
            return bytes(self._file.read(size))


def _connected(uri: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise OSError(f'{uri} needs fsspec: pip install "podium[worker]"') from error
    with _as_os_error(uri):
        system, path = url_to_fs(uri, **(_HTTP if uri.startswith(("http://", "https://")) else {}))
    return system, path


async def _refuse_redirect(response: Any) -> None:
    """A redirect could lead past the prefixes, to an address that only this machine reaches."""
    if 300 <= response.status < 400:
        raise OSError(f"it answers {response.status}, a redirect, and these are not followed; name where it leads")


#: For fsspec's HTTP.
_HTTP: Mapping[str, Any] = {"allow_redirects": False, "client_kwargs": {"raise_for_status": _refuse_redirect}}


@contextmanager
def _as_os_error(location: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        # Every file system raises errors of its own library.
        raise OSError(f"{location}: {type(error).__name__}: {error}") from error
