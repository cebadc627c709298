"""Passes the lines of ranks on to the attempt on another machine, so that ranks need not know where it runs."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from podium.worker.rank_line import answering

_BYTES = 1 << 16


@contextmanager
def relaying(path: Path, call: Callable[[], socket.socket]) -> Iterator[None]:
    """Joins every connection to a Unix socket with a new one to the attempt, while the block runs and until all end.

    Args:
        path: of the socket.
        call: connects to the attempt.
    """

    def serve(rank: socket.socket) -> None:
        with rank, suppress(OSError), call() as attempt:
            back = threading.Thread(target=_pump, args=(attempt, rank), daemon=True)
            back.start()
            _pump(rank, attempt)
            # The rank is dead: nobody hears what the attempt might still say.
            attempt.shutdown(socket.SHUT_RDWR)
            back.join()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with answering(listener, serve):
            yield


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Passes bytes on to the end of either side, and that end too."""
    with suppress(OSError):
        while data := source.recv(_BYTES):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
