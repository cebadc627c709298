"""The sign that an attempt gets on: two numbers in shared memory, which its supervisor sees change, or not.

Giving it is no system call and needs no Redis, so it can be given at every step. The supervisor compares no clocks: it
adds up for how long it saw no change. So neither a machine that was suspended nor a supervisor that was stopped makes
an attempt look stalled.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

#: In the environment of an attempt's processes: the folder that they share with their supervisor.
FOLDER = "PODIUM_ATTEMPT_FOLDER"
_NAME = "pulse"
_BEATS = struct.Struct("=QQ")
#: The most that a single look may add to a silence, in seconds: a supervisor that looks less often learns less.
_LONGEST_LOOK = 30.0


def attempt_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that this process shares with its supervisor; None: it has none, as in tests."""
    name = environ.get(FOLDER, "")
    return Path(name) if name else None


class Pulse:
    """The attempt's side. Any thread may give the sign.

    Args:
        folder: shared with the supervisor; None: nobody listens.
    """

    def __init__(self, folder: Path | None) -> None:
        self._memory: mmap.mmap | bytearray = bytearray(_BEATS.size)
        if folder is not None:
            with (folder / _NAME).open("w+b") as file:
                file.write(bytes(_BEATS.size))
                file.flush()
                self._memory = mmap.mmap(file.fileno(), _BEATS.size)
        self._stepped = 0

    def beat(self, *, stepped: bool = False) -> None:
        """Says that the attempt gets on.

        Args:
            stepped: it has finished a step of its own; from then on less patience is enough.
        """
        if stepped:
            self._stepped = 1
        _BEATS.pack_into(self._memory, 0, time.monotonic_ns(), self._stepped)


class Listener:
    """The supervisor's side.

    Args:
        folder: shared with the attempt.
        clock: seconds that never go backwards.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = folder / _NAME
        self._clock = clock
        self._looked = clock()
        self._last = 0
        self.silence = 0.0
        """For how long no sign was seen, in seconds."""
        self.stepped = False
        """Whether the attempt has finished a step of its own."""

    def listen(self) -> None:
        """Looks for a sign. To be called every second or two."""
        now = self._clock()
        elapsed, self._looked = min(now - self._looked, _LONGEST_LOOK), now
        beat, stepped = self._read()
        self.silence = 0.0 if beat != self._last else self.silence + elapsed
        self._last, self.stepped = beat, bool(stepped)

    def _read(self) -> tuple[int, int]:
        try:
            data = self._file.read_bytes()
        except OSError:
            data = b""
        if len(data) < _BEATS.size:
            return 0, 0
        beat, stepped = _BEATS.unpack_from(data)
        return beat, stepped
