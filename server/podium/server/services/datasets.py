"""Datasets: what lies below the allowed roots and can be trained on. Bounded, and looked for once for all who ask."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from podium.jobs.datasets import Found, Listing, recognise

#: What one look costs at most: folders below a root, entries of folders, and seconds.
DEEPEST = 5
_ENTRIES = 300_000
_ENTRIES_OF_ONE = 50_000
_SECONDS = 3.0
#: So long what was found is told again.
_KEPT_SECONDS = 30.0
#: So many are told at once, and so many characters of paths and splits: a message may have 4 MiB.
MOST = 500
_MOST_CHARACTERS = 800_000


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What was found."""

    datasets: tuple[Found, ...]
    """By path."""
    whole: bool
    """Whether everything was looked at."""


class Datasets:
    """The datasets below some roots, on the event loop.

    Args:
        roots: where paths in a spec may point to.
        clock: seconds.
    """

    def __init__(self, roots: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._roots = roots
        self._clock = clock
        self._looking: asyncio.Task[Discovery] | None = None
        self._since = float("-inf")

    async def list(self, path_contains: str) -> Discovery:
        """Those whose path contains a text, whatever the case of letters."""
        if self._looking is None or self._is_stale(self._looking):
            self._since = self._clock()
            # One thread for all who ask: a slow file system must not take those of other calls.
            self._looking = asyncio.create_task(asyncio.to_thread(discover, self._roots))
        known = await asyncio.shield(self._looking)
        part = path_contains.casefold()
        asked = [one for one in known.datasets if part in one.path.casefold()]
        told = tuple(_within_a_message(asked))
        return Discovery(datasets=told, whole=known.whole and len(told) == len(asked))

    def _is_stale(self, looking: "asyncio.Task[Discovery]") -> bool:
        if not looking.done():
            return False
        return looking.cancelled() or looking.exception() is not None or self._clock() - self._since > _KEPT_SECONDS


def discover(roots: Sequence[str]) -> Discovery:
    """Looks below the roots, the upper folders first, as far as its bounds let it. Blocks. Links are not followed."""
    found: dict[tuple[str, str, str], Found] = {}
    search = _Search()
    pending = deque((str(root), 0) for root in dict.fromkeys(Path(root).resolve() for root in roots))
    while pending and search.is_patient:
        path, depth = pending.popleft()
        datasets, left = recognise(path, search.look(path), search.look)
        found |= {(one.path, one.kind, one.name or "".join(one.splits)): one for one in datasets}
        if depth < DEEPEST:
            pending.extend((f"{path.rstrip('/')}/{name}", depth + 1) for name in left)
        elif left:
            search.whole = False
    whole = search.whole and not pending
    return Discovery(datasets=tuple(one for _, one in sorted(found.items())), whole=whole)


class _Search:
    """Lists folders until its patience is over."""

    def __init__(self) -> None:
        self.whole = True
        """Whether nothing was left out."""
        self._entries = _ENTRIES
        self._end = time.monotonic() + _SECONDS

    @property
    def is_patient(self) -> bool:
        """Whether it goes on."""
        return self._entries > 0 and time.monotonic() < self._end

    def look(self, path: str, most: int | None = None) -> Listing:
        """The names in a folder; `most`: so many of them will do."""
        wanted = most or _ENTRIES_OF_ONE
        limit = min(wanted, self._entries) if self.is_patient else 0
        try:
            with os.scandir(path) as found:
                seen = list(islice(found, limit + 1))
            # A link could lead out of the roots, or in circles; what it leads to within them is found by itself.
            usable = [item for item in seen[:limit] if not item.name.startswith(".") and item.name.isprintable()]
            folders = sorted(item.name for item in usable if item.is_dir(follow_symlinks=False))
            files = sorted(item.name for item in usable if item.is_file(follow_symlinks=False))
        except OSError:
            # What the server may not read, no job is admitted with.
            return Listing()
        self._entries -= len(seen)
        whole = len(seen) <= limit
        if not whole and (most is None or limit < most):
            self.whole = False
        return Listing(folders=tuple(folders), files=tuple(files), whole=whole)


def _within_a_message(datasets: Iterable[Found]) -> Iterator[Found]:
    """The first of them, as many as a caller can be told of at once."""
    characters = 0
    for one in islice(datasets, MOST):
        characters += len(one.path) + sum(map(len, one.splits))
        if characters > _MOST_CHARACTERS:
            return
        yield one
