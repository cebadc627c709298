"""`python -m benchmarks.service.clients`: clients on connections of their own that call again once they are answered.

It says "ready" when each has had a first answer, begins on a line on its standard input, so that several such programs
begin together, and prints what `Calls` has as one line of JSON.

It speaks HTTP/2 itself, as much as unary gRPC needs, because a benchmark's clients share the cores with the server, and
a user's do not. A call of an echo costs it 55 to 75 us of CPU, where pycurl takes 150 to 300, and h2 and grpc.aio 330
to 500, as much as the echo itself.
"""

import argparse
import itertools
import json
import select
import socket
import struct
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

#: Seconds without any answer after which something is wrong.
_PATIENCE = 60.0
#: What a read takes at most; the allocator has so much at hand, and asks the kernel for more.
_READ = 1 << 16

# HTTP/2: RFC 9113.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Length and kind in one number, flags, stream.
_HEAD = struct.Struct(">IBI")
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_BROKEN = {3: "RST_STREAM", 7: "GOAWAY"}
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_ENABLE_PUSH, _INITIAL_WINDOW_SIZE = 2, 4
#: In bytes: a stream's, and the connection's to begin with and from then on.
_STREAM_WINDOW, _FIRST_WINDOW, _WINDOW = (1 << 31) - 1, 65_535, 1 << 24
_LARGEST_FRAME = 16_384
#: gRPC's, of a message: whether it is compressed, its length.
_PREFIX = struct.Struct(">BI")


@dataclass(kw_only=True)
class Calls:
    """What came of them."""

    times: list[float] = field(default_factory=list)
    """Seconds of each, from its sending to the end of its answer; without each client's first."""
    cpu: float = 0.0
    """CPU seconds that this process had for them."""


class _Client:
    """A connection with one call at a time."""

    def __init__(self, address: str, method: str) -> None:
        host, _, port = address.rpartition(":")
        self.began = 0.0
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers, self._headers_again = _headers(address, method)
        self._stream = -1
        self._window = _WINDOW
        self._unread = self._last_headers = b""
        self._answer_size = 0
        settings = struct.pack(">HIHI", _ENABLE_PUSH, 0, _INITIAL_WINDOW_SIZE, _STREAM_WINDOW)
        self.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _widened(_WINDOW - _FIRST_WINDOW))

    def call(self, message: bytes) -> None:
        """Sends a call."""
        self._stream += 2
        self._answer_size = 0
        headers = _frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
        self._headers = self._headers_again
        data = _frame(_DATA, _END_STREAM, self._stream, _PREFIX.pack(0, len(message)) + message)
        self.began = time.perf_counter()
        self.socket.sendall(headers + data)

    def answered(self) -> bool:
        """Reads what has come, and says whether the answer has ended with it.

        Raises:
            RuntimeError: it is an error, or the connection ends.
        """
        came = self.socket.recv(_READ)
        if not came:
            raise RuntimeError("the server has closed the connection")
        data, place, ended = self._unread + came, 0, False
        while len(data) - place >= _HEAD.size:
            length_and_kind, flags, _ = _HEAD.unpack_from(data, place)
            kind, body = length_and_kind & 0xFF, place + _HEAD.size
            end = body + (length_and_kind >> 8)
            if end > len(data):
                break
            if kind == _DATA:
                self._answer_size += end - body
                self._window -= end - body
            elif kind == _HEADERS:
                self._last_headers = data[body:end]
            else:
                self._heed(kind, flags, data[body:end])
            ended |= kind <= _HEADERS and bool(flags & _END_STREAM)
            place = end
        self._unread = data[place:]
        if self._window < _WINDOW // 2:
            self.socket.sendall(_widened(_WINDOW - self._window))
            self._window = _WINDOW
        # An error of gRPC is headers without a message; its code and words are text among them.
        if ended and self._answer_size < _PREFIX.size:
            raise RuntimeError(f"the answer is an error: {self._last_headers!r}")
        return ended

    def _heed(self, kind: int, flags: int, payload: bytes) -> None:
        """A frame that is no part of an answer."""
        if kind == _WINDOW_UPDATE:
            # The server widens its window long before calls one by one, each of a frame, would find it too small.
            return
        if kind not in (_SETTINGS, _PING):
            raise RuntimeError(f"instead of an answer came {_BROKEN.get(kind, f'a frame of kind {kind}')}: {payload!r}")
        if not flags & _ACK:
            self.socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def _widened(size: int) -> bytes:
    return _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", size))


def _headers(address: str, method: str) -> tuple[bytes, bytes]:
    """A call's headers in HPACK (RFC 7541), the first time and later.

    As gRPC's own clients do: the first time each is text that both ends add to their tables, later its place there.
    """
    said = {
        b":path": method.encode(),
        b":authority": address.encode(),
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        b"user-agent": b"podium-benchmark",
        b"grpc-accept-encoding": b"identity, deflate, gzip",
    }
    if max(map(len, said.values())) > 126:
        raise ValueError(f"{method!r} or {address!r} is longer than the 126 bytes whose length HPACK says in one byte")
    post, http, first_place = 0x83, 0x86, 0x80 | 62
    first = (b"\x40%c%b%c%b" % (len(name), name, len(value), value) for name, value in said.items())
    later = (first_place + place for place in range(len(said)))
    return bytes([post, http]) + b"".join(first), bytes([post, http, *later])


def _messages(request: bytes, field: int) -> Iterator[bytes]:
    """The message of each call, with a UUID of its own in that field, if any.

    Raises:
        ValueError: it is too long.
    """
    longest = _LARGEST_FRAME - _PREFIX.size - len("xx") - len(str(uuid.UUID(int=0)))
    if len(request) > longest:
        raise ValueError(f"the request has {len(request)} bytes: {longest} at most, so that it is one frame")
    if not field:
        yield from itertools.repeat(request)
    # A message that follows another of its type is merged into it.
    first = str(uuid.uuid4())
    start = request + bytes([field << 3 | 2, len(first)]) + first[:-12].encode()
    # Counted on, as a new random one costs a fifth of a call.
    for number in itertools.count(int(first[-12:], 16)):
        yield start + b"%012x" % (number % 16**12)


def _call(clients: Sequence[_Client], messages: Iterator[bytes], seconds: float) -> Calls:
    """Lets each client call, once and then for so long, until all are answered."""
    calls, calling, cpu = Calls(), len(clients), time.process_time()
    end = time.perf_counter() + seconds
    by_number = {client.socket.fileno(): client for client in clients}
    with select.epoll() as poll:
        for number, client in by_number.items():
            poll.register(number, select.EPOLLIN)
            client.call(next(messages))
        while calling:
            ready = poll.poll(_PATIENCE)
            if not ready:
                raise TimeoutError(f"{calling} calls have had no answer for {_PATIENCE:.0f} seconds")
            for number, _ in ready:
                client = by_number[number]
                if not client.answered():
                    continue
                now = time.perf_counter()
                calls.times.append(now - client.began)
                if now < end:
                    client.call(next(messages))
                else:
                    calling -= 1
    calls.cpu = time.process_time() - cpu
    return calls


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("method", help="such as /podium.api.v1.JobService/GetJob")
    parser.add_argument("request", type=bytes.fromhex, help="the message's bytes in hexadecimal")
    parser.add_argument("clients", type=int, help="how many")
    parser.add_argument("seconds", type=float, help="for how long")
    parser.add_argument(
        "field", type=int, help="number, to 15, of a string field that gets a UUID in each call; 0: none"
    )
    told = parser.parse_args()
    messages = _messages(told.request, told.field)
    clients = [_Client(told.address, told.method) for _ in range(told.clients)]
    _call(clients, messages, 0.0)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(_call(clients, messages, told.seconds))), flush=True)


if __name__ == "__main__":
    _main()
