"""A trainer that does what the script in its job's display_name says, in place of podium.worker.fit. No torch.

All that it has of the world is the JobContext, as the real one has: what becomes of it when something is killed is the
service's doing. Its checkpoints hold a chain of digests (`chain`).
"""

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from podium.jobs.job import Cause, Job, JobError, Progress
from podium.worker.job_context import JobContext, Stopped, StopReason
from tests.chaos import chain
from tests.chaos.script import FAULTS, Script, ScriptError, parse

_TICK = 0.005
_CHUNK = 1 << 20


class NonFinite(Exception):
    """The loss is not a number."""


def run(job: Job, context: JobContext, *, threads: int) -> None:
    """See podium.worker.trainer.Trainer."""
    _Run(parse(job.spec.display_name), job.attempt, context).train()


def run_as_rank(job: Job, context: JobContext, *, threads: int) -> None:
    """See podium.worker.trainer.Trainer. The first rank does everything; the others stay as long as it does.

    It begins when all of them are there, as one that trains with them does.
    """
    here = context.scratch() / f"ranks-{job.attempt}"
    here.mkdir(parents=True, exist_ok=True)
    (here / os.environ["RANK"]).touch()
    _wait(context, lambda: len(list(here.iterdir())) >= int(os.environ["WORLD_SIZE"]))
    ended = context.scratch() / f"ended-{job.attempt}"
    if os.environ["RANK"] == "0":
        run(job, context, threads=threads)
        ended.touch()
    else:
        _wait(context, ended.exists)


def _wait(context: JobContext, condition: Callable[[], bool]) -> None:
    while not condition():
        if (reason := context.should_stop()) is not None:
            raise Stopped(reason)
        time.sleep(_TICK)


def describe(error: BaseException) -> JobError:
    """See podium.worker.trainer.Trainer."""
    cause = Cause.INTERNAL
    for kind, name in ((NonFinite, Cause.NON_FINITE), (MemoryError, Cause.OOM_HOST), (OSError, Cause.STORAGE)):
        if isinstance(error, kind):
            cause = name
    if isinstance(error, ScriptError):
        cause = Cause.USER_CONFIG
    text = "".join(traceback.format_exception(error))
    return JobError(cause=cause, message=f"{type(error).__name__}: {error}", remedy="as scripted", traceback=text)


def is_consequence(error: BaseException) -> bool:
    """See podium.worker.trainer.Trainer."""
    return False


class _Run:
    """One attempt."""

    def __init__(self, script: Script, attempt: int, context: JobContext) -> None:
        self._script = script
        self._attempt = attempt
        self._context = context
        self._scratch = context.scratch()

    def train(self) -> None:
        saved = self._context.newest()
        link = chain.read(saved.folder) if saved else chain.START
        while link.step < self._script.steps:
            self._obey(link)
            link = self._step(link)
            if self._script.saves_at(link.step):
                self._save(link, hold=link.step == self._script.hold_save)
        if self._script.hold_end:
            self._hold()
            self._mark("left")

    def _step(self, link: chain.Link) -> chain.Link:
        number = link.step + 1
        for fault in FAULTS:
            if getattr(self._script, fault) == number and self._happens(fault):
                _fail(fault)
        if self._script.hold_step == number:
            self._hold()
        time.sleep(self._script.pause)
        link = link.next()
        self._context.report(number, {"train/loss": link.loss, "attempt": self._attempt})
        fraction = number / self._script.steps
        self._context.progress(
            Progress(phase="training", step=number, total_steps=self._script.steps, fraction=fraction)
        )
        return link

    def _obey(self, link: chain.Link) -> None:
        if (reason := self._context.should_stop()) is None:
            return
        if reason is not StopReason.FENCED:
            self._save(link, hold=self._script.hold_stop)
        raise Stopped(reason)

    def _save(self, link: chain.Link, *, hold: bool) -> None:
        def write(folder: Path) -> None:
            link.write(folder)
            # A wish to stop may come before the first step: 0 means never, and not step 0.
            if link.step and self._script.crash_in_save == link.step and self._happens("crash-in-save"):
                _fail("crash")
            if hold:
                self._hold()
            time.sleep(self._script.slow_save)
            _write_ballast(folder / "ballast.bin", self._script.size)

        last = link.step == self._script.steps
        self._context.save(link.step, write, metrics={"train/loss": link.loss}, best=last)

    def _happens(self, fault: str) -> bool:
        """Whether it is to go wrong now: always, or for the first time."""
        if not self._script.once:
            return True
        try:
            self._mark(fault, exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _hold(self) -> None:
        """Waits until it is let go; a newer attempt lets it go as well."""
        self._mark("at")
        while not (self._scratch / "go").exists() and self._context.should_stop() is not StopReason.FENCED:
            time.sleep(_TICK)

    def _mark(self, name: str, *, exist_ok: bool = True) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        (self._scratch / name).touch(exist_ok=exist_ok)


def _fail(fault: str) -> None:
    match fault:
        case "nan":
            raise NonFinite("the loss is nan")
        case "oom":
            raise MemoryError("as scripted")
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            while True:
                time.sleep(60)


def _write_ballast(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, _CHUNK):
            file.write(os.urandom(min(_CHUNK, size - start)))
