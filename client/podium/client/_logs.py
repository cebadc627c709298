"""A job's log that outlives its streams: every line once, in order, however often the connection breaks."""

from collections.abc import Callable, Iterator

from podium.client._patience import Patience
from podium.jobs.errors import PodiumError
from podium.jobs.events import LogLine

#: Opens one stream from an offset (None: the oldest line that is kept): lines, and the offset after them.
OpenLog = Callable[[int | None], Iterator[tuple[tuple[LogLine, ...], int]]]


class Log:
    """The lines of a job's log, read as you iterate. Made by `JobHandle.logs`.

    Args:
        open_stream: opens one stream.
        offset: where to begin.
        patience: how long a connection may be broken.
    """

    def __init__(self, open_stream: OpenLog, offset: int | None, patience: Patience) -> None:
        self._open_stream = open_stream
        self._patience = patience
        self.offset = offset
        """Where to go on, after the lines of the last batch; None before the first one."""

    def __iter__(self) -> Iterator[LogLine]:
        for lines in self.batches():
            yield from lines

    def batches(self) -> Iterator[tuple[LogLine, ...]]:
        """The lines as they come, several at a time.

        Raises:
            PodiumError: the stream ended with an error that will not pass, or that did not within the patience.
        """
        while True:
            try:
                for lines, offset in self._open_stream(self.offset):
                    self._patience.success()
                    yield lines
                    self.offset = offset
            except PodiumError as error:
                self._patience.wait(error)
            else:
                return
