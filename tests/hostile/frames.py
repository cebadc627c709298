"""HTTP/2 by hand, as no library would send it: https://www.rfc-editor.org/rfc/rfc9113 has the frames."""

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_HEAD = 9


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One frame, whose length is true."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, b"".join(struct.pack(">HI", key, value) for key, value in (values or {}).items()))


def header_block(path: str, more: Mapping[str, str] | None = None) -> bytes:
    """The headers of a call: HPACK's literals, without any compression."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
        **(more or {}),
    }
    return b"".join(b"\x00" + _text(key) + _text(value) for key, value in headers.items())


def _text(text: str) -> bytes:
    data = text.encode()
    return _length(len(data)) + data


def _length(number: int) -> bytes:
    if number < 127:
        return bytes([number])
    out, number = bytearray([127]), number - 127
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(body: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A message of gRPC: a flag, a length that may lie, the bytes."""
    return bytes([compressed]) + struct.pack(">I", len(body) if length is None else length) + body


class Line:
    """A connection on which anything may be sent.

    Args:
        address: HOST:PORT.
        initial_window: bytes that the server may send on a stream unasked; None: HTTP/2's own 65535.
        greet: whether to begin as HTTP/2 does.
        source: the address of this machine that it comes from; empty: any.
    """

    def __init__(
        self, address: str, *, initial_window: int | None = None, greet: bool = True, source: str = ""
    ) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10, source_address=(source, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if greet:
            self.send(PREFACE + settings({} if initial_window is None else {4: initial_window}))

    def __enter__(self) -> "Line":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Sends; False: the server has hung up, or takes no more for ten seconds."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def frames(self, seconds: float) -> Iterator[tuple[int, int, int, bytes]]:
        """What the server sends within a time, as kind, flags, stream and payload; answers its SETTINGS and PINGs."""
        end, held = time.monotonic() + seconds, b""
        while (left := end - time.monotonic()) > 0:
            while len(held) >= _HEAD and len(held) >= _HEAD + (size := int.from_bytes(held[:3], "big")):
                kind, flags, stream = held[3], held[4], int.from_bytes(held[5:9], "big") & 0x7FFFFFFF
                payload, held = held[_HEAD : _HEAD + size], held[_HEAD + size :]
                if kind in (SETTINGS, PING) and not flags & ACK:
                    self.send(frame(kind, b"" if kind == SETTINGS else payload, flags=ACK))
                yield kind, flags, stream, payload
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            held += data

    def hung_up(self, seconds: float) -> bool:
        """Whether the server ends the connection within a time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if not self._socket.recv(1 << 16):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False
