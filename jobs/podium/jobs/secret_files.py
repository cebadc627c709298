"""Files with passwords, keys and tokens, which are nobody else's to read."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Others may do nothing with it, and only its owner may write it. The group may read it: so Kubernetes mounts secrets.
_TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


def open_to_others(files: Mapping[str, str | Path | None]) -> Iterator[str]:
    """A sentence for each file that others than its owner may read or write, with the remedy.

    Args:
        files: by what names each, such as a variable; None or "": it names none. What is not there is not judged here.
    """
    for name, path in files.items():
        try:
            mode = Path(path).stat().st_mode if path else 0
        except OSError:
            continue
        if mode & _TOO_OPEN:
            yield f"{name}: others than its owner may read or write {path}; chmod 600 {path}"
