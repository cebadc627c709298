"""A TCP proxy before Redis's socket that can be slow, hold everything back, and cut connections."""

import contextlib
import socket
import threading
import time
from pathlib import Path

_CHUNK = 65_536


class Proxy:
    """Listens on a port of its own until closed.

    Args:
        upstream: the Unix socket that it leads to.
    """

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = threading.Event()
        self._open.set()
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        self.delay = 0.0
        """Seconds that every answer is late."""
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        """Of a Redis, for clients."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def hold(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        self._open.clear()

    def release(self) -> None:
        """What was held back gets through."""
        self._open.set()

    def cut(self) -> int:
        """Ends every connection, and returns how many there were."""
        with self._guard:
            victims, self._connections = self._connections, set()
        for victim in victims:
            with contextlib.suppress(OSError):
                victim.shutdown(socket.SHUT_RDWR)
        return len(victims)

    def close(self) -> None:
        """Ends."""
        self.release()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            try:
                upstream.connect(str(self._upstream))
            except OSError:  # Redis is away, and so is this connection
                client.close()
                continue
            with self._guard:
                self._connections.add(client)
            for source, sink, late in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, late), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, late: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                time.sleep(self.delay if late else 0.0)
                self._open.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
