"""A job with several devices: torchrun and its ranks, as the process of an attempt sees them.

The attempt keeps the lease, the ledger and the checkpoints; the ranks only compute, and talk to it over a line each
(see `rank_line`). A rank says "failed" before it exits, and one that dies without a word is noticed by the end of its
line: so the first to go wrong is known, and what the others say of its absence is not mistaken for the cause.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from podium.jobs.job import Cause, Job, JobError
from podium.worker.job_context import JobContext, Stopped, StopReason
from podium.worker.processes import describe_exit
from podium.worker.stop import StopFlag
from podium.worker.switchboard import Switchboard, Word

#: How soon a wish to stop is passed on, in seconds.
_TICK = 0.1
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class RankFailed(Exception):
    """A rank ended with an error of its own, which it described."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class RankDied(Exception):
    """A rank's process died without a word, such as "of rank 1 of 2 was killed by signal 9 (SIGKILL)".

    Args:
        how: the words.
        status: its wait status; 0 where it is not known.
    """

    def __init__(self, how: str, status: int = 0) -> None:
        super().__init__(how)
        self.status = status


class Ranks:
    """Trains a job with one rank for each of its devices.

    Args:
        job: the job; `resources.gpus` ranks are started.
        context: the attempt's line to the job. Used from several threads.
        stop: what it says is passed on to the ranks.
        mark: the argument by which the processes are found.
        environment: of the ranks.
    """

    def __init__(
        self, job: Job, context: JobContext, stop: StopFlag, *, mark: str, environment: Mapping[str, str]
    ) -> None:
        self._switchboard = Switchboard(job, context)
        self._count = job.spec.resources.gpus
        self._stop, self._mark, self._environment = stop, mark, environment

    def run(self) -> None:
        """Trains to the end; no rank runs any more when this returns or raises.

        Raises:
            Stopped: the attempt is to end; a checkpoint has been saved, unless the attempt was fenced out.
            RankFailed: a rank failed.
            RankDied: a rank was killed.
        """
        # Only this user may enter the folder, and so only the ranks can be on a line.
        with tempfile.TemporaryDirectory(prefix="podium-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            with self._switchboard.listening(folder / "line"):
                launcher = self._launch(folder)
                try:
                    self._attend(launcher)
                finally:
                    launcher.kill()
                    launcher.wait()
            exits = _exits(folder)
        if self._switchboard.broken is not None:
            raise self._switchboard.broken
        if self._stop.reason is StopReason.FENCED:
            raise Stopped(StopReason.FENCED)
        if (wrong := verdict(self._switchboard.words, exits, self._count)) is not None:
            raise wrong

    def _launch(self, folder: Path) -> "subprocess.Popen[bytes]":
        arguments = (self._mark, str(os.getpid()), str(self._count), str(folder))
        command = (sys.executable, "-m", "podium.worker.torchrun", *arguments)
        # Ranks of one machine need not be heard by others.
        environment = {**self._environment, "GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK}
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)

    def _attend(self, launcher: "subprocess.Popen[bytes]") -> None:
        """Passes on the wish to stop until all ranks are gone, or are to be."""
        while self._switchboard.broken is None and self._stop.reason is not StopReason.FENCED:
            with contextlib.suppress(subprocess.TimeoutExpired):
                launcher.wait(timeout=_TICK)
                return
            self._switchboard.pass_on(self._stop.reason)


def verdict(words: Sequence[Word], exits: Mapping[int, int], count: int) -> Exception | None:
    """How ranks ended: None when the job is done. What rank 0 has reached counts; of what went wrong, the first cause.

    Args:
        words: the last ones of the ranks, in the order in which they came.
        exits: the exit codes of the ranks that were first to exit with one, as torchrun saw them; negative: a signal.
        count: how many ranks there were.
    """
    for word in words:
        if word.rank == 0 and word.kind == "done":
            return None
        if word.rank == 0 and word.kind == "stopped":
            return Stopped(StopReason(word.message["reason"]))
    spoke = {word.rank for word in words}
    silent = [Word(rank, "vanished") for rank in exits if rank not in spoke]
    wrong = [word for word in (*words, *silent) if word.kind in ("vanished", "failed")]
    if not wrong:
        return RankDied("ended: torchrun did not start its ranks; its words are in the worker's own log")
    first = min(wrong, key=lambda word: not _is_cause(word, exits))
    who = f"rank {first.rank} of {count}"
    if first.kind == "vanished":
        code = exits.get(first.rank)
        if code is None:
            return RankDied(f"of {who} died with torchrun")
        status = -code if code < 0 else code << 8
        return RankDied(f"of {who} {describe_exit(status)}", status)
    said = first.message
    error = JobError(cause=Cause[said["cause"]], message=f"{who}: {said['message']}", remedy=said["remedy"])
    return RankFailed(replace(error, traceback=said["traceback"]))


def _is_cause(word: Word, exits: Mapping[int, int]) -> bool:
    """Whether a rank went wrong by itself: torchrun ends the others only after it has noted the first exits."""
    return word.rank in exits if word.kind == "vanished" else not word.message["consequence"]


def _exits(folder: Path) -> dict[int, int]:
    try:
        found = json.loads((folder / "exits.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {int(rank): int(code) for rank, code in found.items()}
