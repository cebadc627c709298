"""The classes of a split, read once as long as its file stays the same."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from podium.jobs.datasets import Split
from podium.jobs.spec import ImageFolder, ImageManifest

Scanned = ImageFolder | ImageManifest
"""What a server reads before it accepts a job."""
Counts = Mapping[str, int]
Scan = Callable[[Scanned, Split], Counts | None]
_KEPT = 256


class CachedScan:
    """Remembers the classes of tar files and tables by what names them, time and size.

    Folders are read again every time: a new class folder need not change the time of the folder above.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._known: OrderedDict[tuple[Scanned, Split, int, int], Counts | None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, dataset: Scanned, split: Split) -> Counts | None:
        """Class name -> number of images; None: there is no such split."""
        path = Path(getattr(dataset, split))
        if not path.is_file():
            return self._scan(dataset, split)
        status = path.stat()
        key = (dataset, split, status.st_mtime_ns, status.st_size)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = self._scan(dataset, split)
            with self._lock:
                self._known[key] = known
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return known
