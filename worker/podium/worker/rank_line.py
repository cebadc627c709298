"""The line between the process of an attempt and one of its ranks: a socket, one JSON object a line. No pickle.

The rank says "hello" and is given the "job". From then on it says, without waiting for an answer:

    metrics, progress, log      see `JobContext`
    done | stopped | failed     its last word

and asks, to be told an "answer" or "refused":

    newest, best, checkpoint, features, scratch     see `JobContext`
    save        the answer is a folder; then "written", answered when the checkpoint is committed, or "unwritten"

The other machines of an attempt on several (see `follower`) have a line each too. It begins with "here", where a rank's
does with "hello", and they say on it:

    alive       every second
    stop        the machine asks the whole attempt to save its work and end
    ended       how its ranks did, when they have
    stacks      where its processes hang, when the attempt has said "stacks" to it (see `roll_call`)

The attempt says "stop" to ranks unasked, so that a rank may look before every step without asking. A rank whose line
ends has lost its attempt and dies; a rank that ends it without a last word has died. No torch here, and no ledger.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from podium.jobs.errors import DataLossError, NotFoundError

Message = dict[str, Any]

#: No line is longer; the job of one with very many classes is the longest that there is.
_MOST_CHARACTERS = 1 << 26

#: What a request may be refused with, and the rank raises again.
REFUSALS: dict[str, type[Exception]] = {cls.__name__: cls for cls in (NotFoundError, DataLossError, OSError)}


class Line:
    """One end. Any thread may send; one thread receives.

    Args:
        connection: a connected stream socket, which this owns.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming = connection.makefile("r", encoding="utf-8")
        self._sending = threading.Lock()

    @classmethod
    def to(cls, path: Path) -> "Line":
        """A rank's end.

        Raises:
            OSError: nobody listens there.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        return cls(connection)

    def send(self, kind: str, **fields: Any) -> None:
        """Says something.

        Raises:
            OSError: the other end is gone.
        """
        data = json.dumps({"kind": kind, **fields}).encode() + b"\n"
        with self._sending:
            self._connection.sendall(data)

    def receive(self) -> Message | None:
        """The next message; None: the other end is gone."""
        try:
            text = self._incoming.readline(_MOST_CHARACTERS)
        except OSError:
            return None
        # A process that is killed may leave half a line.
        return json.loads(text) if text.endswith("\n") else None

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive()) is not None:
            yield message

    def end(self) -> None:
        """Says nothing more, and wakes whoever receives."""
        with contextlib.suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Frees what the line holds."""
        self._incoming.close()
        self._connection.close()


@contextlib.contextmanager
def answering(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serves those who connect, each in a thread, while the block runs; then waits for the end of every thread.

    Args:
        listener: listens.
        serve: owns the connection that it is given.
    """
    threads: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, name="lines", daemon=True)
    acceptor.start()
    try:
        yield
    finally:
        # close() alone would not wake the thread.
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        for thread in threads:
            thread.join()
