"""A receiver of webhooks: a real HTTP server that answers as a test says."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from podium.client import Notice, verify_webhook

SECRET = "a-secret-of-16-or-more"


@dataclass
class Receiver:
    """What came, and how it is answered: with a status, with (302, location), or by a function of the handler."""

    url: str = ""
    answers: list[Any] = field(default_factory=list)
    """One a request; 200 when they are used up."""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def notices(self) -> list[Notice]:
        """All that came, verified; at whatever time, as tests turn clocks."""
        pairs = zip(self.bodies, self.headers, strict=True)
        return [verify_webhook(body, headers, SECRET, tolerance=1e6) for body, headers in pairs]

    def wait(self, count: int, seconds: float = 30.0) -> None:
        """Until so many requests have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.bodies) >= count, seconds), "nothing came"


@contextmanager
def receiving(
    *answers: int | tuple[int, str] | Callable[[BaseHTTPRequestHandler], object],
    certificate: tuple[Path, Path] | None = None,
    port: int = 0,
) -> Iterator[Receiver]:
    """A receiver on a free port, with TLS where it has a certificate."""
    receiver = Receiver(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.changed:
                receiver.bodies.append(body)
                receiver.headers.append(dict(self.headers))
                answer = receiver.answers.pop(0) if receiver.answers else 200
                receiver.changed.notify_all()
            if callable(answer):
                answer(self)
                return
            status, location = answer if isinstance(answer, tuple) else (answer, "")
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    receiver.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/hook?a=b"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
