"""The attempt's end of its ranks' lines: does for them what a JobContext does, and keeps their last words."""

import base64
import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podium.jobs import wire
from podium.jobs.events import Level
from podium.jobs.job import Job, Progress
from podium.worker.job_context import JobContext, Saved, StopReason
from podium.worker.membership import Membership
from podium.worker.rank_line import REFUSALS, Line, Message, answering
from podium.worker.rendezvous import Rendezvous


@dataclass(frozen=True)
class Word:
    """The last one of a rank: "done", "stopped", "failed", or "vanished" where its line ended without one."""

    rank: int
    kind: str
    message: Message = field(default_factory=dict)


class Switchboard:
    """Serves the ranks of one attempt.

    Args:
        job: what they are told to do.
        context: the attempt's line to the job. Used from several threads.
        membership: of the other machines, where there are some.
    """

    def __init__(self, job: Job, context: JobContext, membership: Membership | None = None) -> None:
        self._welcome = base64.b64encode(wire.to_bytes(job)).decode()
        self._context = context
        self._guard = threading.Lock()
        self._membership = membership
        self._lines: list[Line] = []
        self._distant: list[Line] = []
        self._machines: list[Line] = []
        self._over = False
        self._told: StopReason | None = None
        self.words: list[Word] = []
        """In the order in which they came."""
        self.broken: Exception | None = None
        """What the context raised that no rank can be told."""

    def pass_on(self, reason: StopReason | None) -> None:
        """Tells all ranks, also those that come later, why to stop; None: nothing to tell."""
        with self._guard:
            if reason is not self._told:
                self._told = reason
                for line in self._lines:
                    _tell(line, reason)

    def call_roll(self) -> None:
        """Has the other machines say where their ranks are."""
        with self._guard:
            for line in self._machines:
                with contextlib.suppress(OSError):  # gone already
                    line.send("stacks")

    @contextlib.contextmanager
    def listening(self, path: Path, rendezvous: Rendezvous | None = None) -> Iterator[None]:
        """Serves while the block runs, and then to the end of every line of this machine: until its ranks are dead.

        Args:
            path: of a Unix socket, for the ranks of this machine.
            rendezvous: where the other machines and their ranks call; their lines end with the block.
        """
        with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
            listener.bind(str(path))
            listener.listen()
            stack.enter_context(answering(listener, lambda connection: self._serve(Line(connection))))
            if rendezvous is not None:
                stack.enter_context(answering(rendezvous.door, lambda connection: self._let_in(rendezvous, connection)))
                stack.callback(self._hang_up)
            yield

    def _let_in(self, rendezvous: Rendezvous, connection: socket.socket) -> None:
        if not rendezvous.admits(connection):
            connection.close()
            return
        line = Line(connection)
        with self._guard:
            late = self._over
            if not late:
                self._distant.append(line)
        if late:
            line.close()
        else:
            self._serve(line)

    def _hang_up(self) -> None:
        """Ends the lines of other machines, which may be gone without having ended them."""
        with self._guard:
            self._over = True
        for line in self._distant:
            line.end()

    def _serve(self, line: Line) -> None:
        """Whoever is on the line, from the first word to the end."""
        match line.receive():
            case {"kind": "hello", "rank": int(rank)}:
                self._serve_rank(rank, line)
            case {"kind": "here", "node": str(node)} if self._membership is not None:
                with self._guard:
                    self._machines.append(line)
                self._membership.listen(node, line)
        line.close()

    def _serve_rank(self, rank: int, line: Line) -> None:
        word = Word(rank, "vanished")
        with contextlib.suppress(OSError):  # what a dead rank cannot hear, it need not hear
            self._admit(line)
            for message in line:
                if message["kind"] in ("done", "stopped", "failed"):
                    word = Word(word.rank, message["kind"], message)
                    break
                self._answer(rank, line, message)
        with self._guard:
            self.words.append(word)
            if line in self._lines:
                self._lines.remove(line)
        for _ in line:
            pass

    def _admit(self, line: Line) -> None:
        with self._guard:
            line.send("job", job=self._welcome)
            self._lines.append(line)
            _tell(line, self._told)

    def _answer(self, rank: int, line: Line, message: Message) -> None:
        try:
            answer = self._obey(rank, line, message)
        except tuple(REFUSALS.values()) as error:
            name = next(name for name, cls in REFUSALS.items() if isinstance(error, cls))
            line.send("refused", error=name, text=str(error))
        except _Unwritten:
            pass
        except Exception as error:  # whoever runs the ranks raises it again
            self.broken = self.broken or error
        else:
            if answer is not None:
                line.send("answer", **answer)

    def _obey(self, rank: int, line: Line, message: Message) -> dict[str, Any] | None:
        """Does what a rank says; returns the answer where it waits for one."""
        context = self._context
        match message:
            case {"kind": "metrics", "step": int(step), "values": dict(values)}:
                context.report(step, values)
            case {"kind": "progress", "progress": dict(progress)}:
                context.progress(Progress(**progress))
            case {"kind": "log", "text": str(text), "level": str(level)}:
                context.log(text, Level[level], rank=rank)
            case {"kind": "newest"}:
                return _saved(context.newest())
            case {"kind": "best"}:
                return _saved(context.best())
            case {"kind": "checkpoint", "id": str(checkpoint_id)}:
                return _saved(context.checkpoint(checkpoint_id))
            case {"kind": "features", "key": str(key)}:
                return {"folder": str(context.features(key))}
            case {"kind": "scratch"}:
                return {"folder": str(context.scratch())}
            case {"kind": "save", "step": int(step), "metrics": dict(metrics), "best": bool(best)}:
                context.save(step, functools.partial(_have_written, line), metrics=metrics, best=best)
                return {}
            case _:
                raise ValueError(f"a rank said {str(message)[:200]}")
        return None


class _Unwritten(Exception):
    """The rank could not write its checkpoint; it knows why."""


def _have_written(line: Line, folder: Path) -> None:
    line.send("answer", folder=str(folder))
    if (message := line.receive()) is None or message["kind"] != "written":
        raise _Unwritten


def _saved(saved: Saved | None) -> dict[str, Any]:
    return {} if saved is None else {"step": saved.step, "folder": str(saved.folder)}


def _tell(line: Line, reason: StopReason | None) -> None:
    if reason is not None:
        with contextlib.suppress(OSError):  # gone already
            line.send("stop", reason=reason.value)
