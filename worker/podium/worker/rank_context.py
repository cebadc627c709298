"""The JobContext of a rank: everything goes over its line. No torch here, and no ledger."""

import queue
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from podium.jobs.events import Level
from podium.jobs.job import Progress
from podium.worker.job_context import Saved, StopReason
from podium.worker.rank_line import REFUSALS, Line, Message


class RankContext:
    """The JobContext of a rank: see `podium.worker.job_context.JobContext`.

    Args:
        line: to the process of the attempt. One thread asks, another listens.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._reason: StopReason | None = None
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def listen(self) -> None:
        """Hears what the attempt says, to the end of the line."""
        for message in self._line:
            if message["kind"] == "stop":
                self._reason = StopReason(message["reason"])
            else:
                self._answers.put(message)

    def _ask(self, kind: str, **fields: Any) -> Message:
        self._line.send(kind, **fields)
        answer = self._answers.get()
        if answer["kind"] == "refused":
            raise REFUSALS[answer["error"]](answer["text"])
        return answer

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `JobContext`."""
        self._line.send("metrics", step=step, values=dict(metrics))

    def progress(self, progress: Progress) -> None:
        """See `JobContext`."""
        self._line.send("progress", progress=asdict(progress))

    def log(self, text: str, level: Level = Level.INFO, *, rank: int = 0) -> None:
        """See `JobContext`; the attempt knows whose line it is."""
        self._line.send("log", text=text, level=level.name)

    def should_stop(self) -> StopReason | None:
        """See `JobContext`."""
        return self._reason

    def save(self, step: int, write: Callable[[Path], None], *, metrics: Mapping[str, float], best: bool) -> None:
        """See `JobContext`."""
        folder = Path(self._ask("save", step=step, metrics=dict(metrics), best=best)["folder"])
        try:
            write(folder)
        except BaseException:
            self._line.send("unwritten")
            raise
        self._ask("written")

    def newest(self) -> Saved | None:
        """See `JobContext`."""
        return _saved(self._ask("newest"))

    def best(self) -> Saved | None:
        """See `JobContext`."""
        return _saved(self._ask("best"))

    def checkpoint(self, checkpoint_id: str) -> Saved:
        """See `JobContext`."""
        answer = self._ask("checkpoint", id=checkpoint_id)
        return Saved(step=answer["step"], folder=Path(answer["folder"]))

    def features(self, key: str) -> Path:
        """See `JobContext`."""
        return Path(self._ask("features", key=key)["folder"])

    def scratch(self) -> Path:
        """See `JobContext`."""
        return Path(self._ask("scratch")["folder"])


def _saved(answer: Message) -> Saved | None:
    return Saved(step=answer["step"], folder=Path(answer["folder"])) if "folder" in answer else None
