"""What an agent and its slots' supervisors tell each other: small files in a folder that only their user may enter.

It is all on one machine, so none of it is the ledger's business, and it works while Redis is away.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

#: In the environment of a slot's processes: the folder.
FOLDER = "PODIUM_AGENT_FOLDER"


class Noticeboard:
    """The folder.

    Args:
        folder: exists, and is the agent's to remove.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def occupy(self, slot: int, slots: Sequence[int]) -> None:
        """The supervisor of a slot says which slots its attempt holds."""
        self._write(f"busy-{slot}", json.dumps(list(slots)))

    def vacate(self, slot: int) -> None:
        """The supervisor of a slot, or the agent when that has died, says that nothing of it runs any more."""
        (self.folder / f"busy-{slot}").unlink(missing_ok=True)

    def occupied(self, *, but: int | None = None) -> frozenset[int]:
        """The slots whose devices the attempts of this machine use, but for the one of this slot's supervisor."""
        found: set[int] = set()
        for file in self.folder.glob("busy-*"):
            if file.name != f"busy-{but}":
                found.update(json.loads(_read(file) or "[]"))
        return frozenset(found)

    def warn(self, slot: int, trouble: str) -> None:
        """The agent says why a slot takes no jobs; empty: it does."""
        self._write(f"trouble-{slot}", trouble)

    def trouble(self, slot: int) -> str:
        """What the agent said last."""
        return _read(self.folder / f"trouble-{slot}")

    def _write(self, name: str, text: str) -> None:
        beside = self.folder / f".{name}.{os.getpid()}"
        beside.write_text(text, encoding="utf-8")
        beside.replace(self.folder / name)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
