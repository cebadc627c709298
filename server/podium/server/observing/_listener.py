"""A port for operators' programs: HTTP, reading only, in threads of its own, and no way to hold it up.

http.server is not for the open Internet, and neither is this port: docs/observability.md.
"""

import contextlib
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeAlias

_LOG = logging.getLogger(__name__)


class Answer(NamedTuple):
    """Of one request."""

    status: int
    content_type: str
    body: bytes


#: From a request's Accept header to the answer.
Page: TypeAlias = Callable[[str], Answer]


class Listener:
    """Answers GET at some paths.

    Args:
        listen: HOST:PORT; port 0 takes a free one.
        pages: by path.
        most: callers at a time; whoever comes then is turned away.
        patience: seconds that a caller may take, from connecting to the last byte read.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, listen: str, pages: Mapping[str, Page], *, most: int = 16, patience: float = 5.0) -> None:
        host, _, port = listen.rpartition(":")
        if not (host and port.isdecimal()):
            raise OSError(f"--metrics-listen {listen!r}: write HOST:PORT, such as 127.0.0.1:9464")
        try:
            self._server = _Server((host.strip("[]"), int(port)), pages, most, patience)
        except (OSError, OverflowError) as error:
            raise OSError(f"cannot listen on {listen} for metrics; choose another --metrics-listen") from error
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="podium-metrics", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; an answer in hand is finished or not."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Page], most: int, patience: float) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.pages = pages
        self._places = threading.BoundedSemaphore(most)
        self._patience = patience
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's own, which asks DNS for a name that nobody uses.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # Not a timeout of the socket, which whoever sends a letter now and then never meets.
        over = threading.Timer(self._patience, _break, [request])
        over.daemon = True
        over.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            over.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("a caller of the metrics port went away", exc_info=True)


def _break(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "podium", ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            answer = Answer(404, "text/plain", f"there is {', '.join(self.server.pages)}\n".encode())
        else:
            answer = page(self.headers.get("Accept", ""))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *words: Any) -> None:
        _LOG.debug(format, *words)
