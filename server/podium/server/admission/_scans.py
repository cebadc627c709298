"""The classes of a dataset, read once as long as its file stays the same."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

Scan = Callable[[str], Mapping[str, int]]
_KEPT = 256


class CachedScan:
    """Remembers the classes of tar files by path, time and size.

    Folders are read again every time: a new class folder need not change the time of the folder above.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._known: OrderedDict[tuple[str, int, int], Mapping[str, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: str) -> Mapping[str, int]:
        """Class name -> number of images."""
        if not Path(path).is_file():
            return self._scan(path)
        status = Path(path).stat()
        key = (path, status.st_mtime_ns, status.st_size)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = self._scan(path)
            with self._lock:
                self._known[key] = known
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return known
