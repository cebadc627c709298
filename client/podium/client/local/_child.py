"""A process that is started, looked after and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LEASH = Path(__file__).with_name("_leash.py")


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to our own."""
    grace: float = 15.0
    """Seconds from SIGTERM to SIGKILL."""
    inherited: tuple[int, ...] = ()
    """Open files that it holds as long as it lives."""
    outlives: int | None = None
    """The reading end of a pipe: it stays until nobody holds the writing end; otherwise it stops when we die."""


class Child:
    """A running program. It ends when we are gone, and the terminal's Ctrl-C does not reach it: we stop it in order."""

    def __init__(self, program: Program) -> None:
        self.program = program
        pipe = "-" if program.outlives is None else str(program.outlives)
        leash = (sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), pipe)
        inherited = program.inherited if program.outlives is None else (*program.inherited, program.outlives)
        with program.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [*leash, *program.command],
                env={**os.environ, **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=inherited,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ended(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def last_words(self, lines: int = 8) -> str:
        """The end of what it wrote to its log since it was started."""
        with self.program.log.open("rb") as log:
            log.seek(self._log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """SIGTERM, and SIGKILL once the grace is over or there is a hurry."""
        if self._process.poll() is None:
            self._process.terminate()
        deadline = time.monotonic() + self.program.grace
        while self._process.poll() is None:
            if time.monotonic() > deadline or hurry():
                self._kill_group()
            time.sleep(0.05)

    def _kill_group(self) -> None:
        # Its own session is its own process group, with whatever it has started there.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()
