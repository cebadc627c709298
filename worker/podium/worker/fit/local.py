"""A JobContext without a service: everything in one folder. For scripts and tests."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from podium.jobs.errors import NotFoundError
from podium.jobs.events import Level
from podium.jobs.job import Progress
from podium.worker.job_context import Saved, StopReason


class LocalContext:
    """Keeps checkpoints and features under a folder, and everything said in memory.

    Args:
        root: the folder; a run with the same one resumes.
        should_stop: asked before every step.
    """

    def __init__(self, root: Path, *, should_stop: Callable[[], StopReason | None] = lambda: None) -> None:
        self.root = root
        self.metrics: dict[str, dict[int, float]] = {}
        self.lines: list[str] = []
        self.last_progress: Progress | None = None
        self._should_stop = should_stop

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `JobContext`."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, {})[step] = value

    def progress(self, progress: Progress) -> None:
        """See `JobContext`."""
        self.last_progress = progress

    def log(self, text: str, level: Level = Level.INFO, *, rank: int = 0) -> None:
        """See `JobContext`."""
        self.lines.append(text)

    def should_stop(self) -> StopReason | None:
        """See `JobContext`."""
        return self._should_stop()

    def save(self, step: int, write: Callable[[Path], None], *, metrics: Mapping[str, float], best: bool) -> None:
        """See `JobContext`; keeps every checkpoint."""
        beside, folder = self.root / "unfinished", self.root / "checkpoints" / f"{step:09}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write(beside)
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        if best:
            (self.root / "best.json").write_text(json.dumps(step))

    def newest(self) -> Saved | None:
        """See `JobContext`."""
        folders = sorted((self.root / "checkpoints").glob("*"))
        return Saved(step=int(folders[-1].name), folder=folders[-1]) if folders else None

    def best(self) -> Saved | None:
        """See `JobContext`."""
        note = self.root / "best.json"
        return self.checkpoint(note.read_text()) if note.exists() else None

    def checkpoint(self, checkpoint_id: str) -> Saved:
        """See `JobContext`; ids are steps here."""
        folder = self.root / "checkpoints" / f"{int(checkpoint_id):09}"
        if not folder.is_dir():
            raise NotFoundError(f"no checkpoint of step {checkpoint_id} in {self.root}")
        return Saved(step=int(checkpoint_id), folder=folder)

    def features(self, key: str) -> Path:
        """See `JobContext`."""
        return self.root / "features" / key

    def scratch(self) -> Path:
        """See `JobContext`."""
        return self.root / "scratch"
