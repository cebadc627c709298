"""Connections that nobody should make. Each attack holds what it can for a moment, and says what the server did."""

import contextlib
import resource
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.hostile import frames
from tests.hostile.frames import Line, frame, header_block, message
from tests.hostile.site import Site

_GET = "/podium.api.v1.JobService/GetJob"
_WATCH = "/podium.api.v1.JobService/WatchJob"
_SCHEMA = "/podium.api.v1.ServerService/GetSpecSchema"
#: 64 KiB of gzip.
_BOMB = 64 << 20
_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


class Harm(AssertionError):
    """An attack did what none may; the sentence says what."""


def _headers(site: Site, path: str, stream: int, *, more: Mapping[str, str] | None = None, flags: int = 0) -> bytes:
    block = header_block(path, {"authorization": f"Bearer {site.secret}", **(more or {})})
    return frame(frames.HEADERS, block, flags=flags | frames.END_HEADERS, stream=stream)


@contextlib.contextmanager
def _lines(site: Site, count: int, **options: bool | int) -> Iterator[list[Line]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Line(site.server.address, **options)) for _ in range(count)]  # type: ignore[arg-type]  # the options of Line


def _still_serves(site: Site) -> None:
    if not site.serves():
        raise Harm("others are no longer served")


def _send_and_see(site: Site, *what: bytes, greet: bool = True) -> str:
    hung_up = []
    for data in what:
        with Line(site.server.address, greet=greet) as line:
            line.send(data)
            hung_up.append(line.hung_up(0.5))
    return f"hangs up on {sum(hung_up)} of {len(hung_up)} within half a second"


def no_http2(site: Site) -> str:
    """Something else than HTTP/2."""
    hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(196)
    return _send_and_see(
        site,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        hello,
        b"\x00" * 100,
        b"\xff" * 100_000,
        frames.PREFACE[:10],
        greet=False,
    )


def broken_frames(site: Site) -> str:
    """Frames that break HTTP/2's rules."""
    call = _headers(site, _GET, 1)
    return _send_and_see(
        site,
        b"\xff\xff\xff" + bytes([frames.DATA, 0]) + struct.pack(">I", 1) + bytes(1000),
        frame(frames.SETTINGS, b"123"),
        frame(frames.DATA, b"x", stream=7),
        frame(frames.HEADERS, b"\xff" * 50, flags=frames.END_HEADERS, stream=1),
        frame(frames.HEADERS, b"\x80", flags=frames.END_HEADERS, stream=1),
        frame(frames.CONTINUATION, b"x", flags=frames.END_HEADERS, stream=1),
        frame(frames.PING, b"short"),
        frame(frames.WINDOW, struct.pack(">I", 0)),
        frame(frames.WINDOW, struct.pack(">I", 0x7FFFFFFF)) * 2,
        call + frame(frames.WINDOW, struct.pack(">I", 0x7FFFFFFF), stream=1) * 2,
        call + call,
        _headers(site, _GET, 2),
        frames.settings({5: 1, 4: 0xFFFFFFFF}),
        frame(0xEE, b"unknown kind"),
    )


def lying_messages(site: Site) -> str:
    """Messages whose length or flag is not true."""
    codes = []
    for body, more in [
        (message(b"\x0a\x01a", length=100), {}),
        (message(b"\x0a\x01a", length=0xFFFFFFFF), {}),
        (message(b"\x0a\x01a", compressed=1), {}),
        (message(b"\x0a\x01a", compressed=7), {}),
        (message(b"no gzip", compressed=1), {"grpc-encoding": "gzip"}),
        (message(b"\x0a\x01a", compressed=1), {"grpc-encoding": "nonsense"}),
        (message(b"\x0a\x01a") * 3, {}),
        (b"\x00\x00", {}),
        (b"", {}),
    ]:
        with Line(site.server.address) as line:
            line.send(_headers(site, _GET, 1, more=more) + frame(frames.DATA, body, flags=frames.END_STREAM, stream=1))
            kinds = [kind for kind, _, stream, _ in line.frames(1.0) if stream == 1]
            codes.append(frames.HEADERS in kinds or frames.RESET in kinds)
    return f"ends {sum(codes)} of {len(codes)} calls within a second, each by itself"


def bombs(site: Site) -> str:
    """Requests of 64 KiB that gzip makes 64 MiB of."""
    before = most = site.memory
    with site.new_channel() as channel, ThreadPoolExecutor(1) as thread:
        call: Any = channel.unary_unary(_GET)
        for _ in range(3):
            sent = thread.submit(call, bytes(_BOMB), timeout=30, compression=grpc.Compression.Gzip)
            while not sent.done():
                most = max(most, site.memory)
            if (code := sent.exception().code()) not in _REFUSED:  # type: ignore[union-attr]  # a refusal has a code
                raise Harm(f"a bomb got {code.name}")
    if most - before > _BOMB / (2 << 20):
        raise Harm(f"a request of 64 KiB made the server {most - before:.0f} MiB larger")
    return f"refused; the server's memory grows by {most - before:.0f} MiB at most"


def floods(site: Site) -> str:
    """Thousands of PINGs, SETTINGS, empty frames, and headers that never end."""
    with _lines(site, 4) as (pings, changes, empty, endless):
        pings.send(frame(frames.PING, bytes(8)) * 20_000)
        changes.send(frames.settings({3: 100}) * 20_000)
        empty.send(_headers(site, _GET, 1) + frame(frames.DATA, stream=1) * 20_000)
        endless.send(frame(frames.HEADERS, header_block(_GET), stream=1))
        for number in range(5_000):
            if not endless.send(
                frame(
                    frames.CONTINUATION,
                    b"\x00\x05x-" + b"%03d" % (number % 1000) + b"\x7f\x81\x07" + b"y" * 1024,
                    stream=1,
                )
            ):
                break
        _still_serves(site)
        return f"hangs up on {sum(line.hung_up(1.0) for line in (pings, changes, empty, endless))} of 4"


def rapid_resets(site: Site) -> str:
    """20,000 calls that are reset as soon as they are made."""
    with Line(site.server.address) as line:
        for first in range(1, 40_001, 200):
            calls = (
                _headers(site, _GET, stream)
                + frame(frames.DATA, message(b"\x0a\x01a"), flags=frames.END_STREAM, stream=stream)
                + frame(frames.RESET, struct.pack(">I", 8), stream=stream)
                for stream in range(first, first + 200, 2)
            )
            if not line.send(b"".join(calls)):
                break
        _still_serves(site)
        return "others are served meanwhile"


def slow_readers(site: Site, count: int = 50) -> str:
    """Callers who ask for much and never read."""
    before = site.memory
    with _lines(site, count, initial_window=0) as lines:
        for line in lines:
            for stream in range(1, 40, 2):
                line.send(
                    _headers(site, _SCHEMA, stream)
                    + frame(frames.DATA, message(b""), flags=frames.END_STREAM, stream=stream)
                )
        _still_serves(site)
        return f"{count * 20} answers wait, and take {max(0.0, site.memory - before):.0f} MiB; others are served"


def half_open(site: Site, count: int = 100) -> str:
    """Connections that say nothing, or only hello, and calls that never end."""
    with _lines(site, count, greet=False) as silent, _lines(site, count) as greeted, _lines(site, 10) as calling:
        for line in silent[: count // 2]:
            line.send(frames.PREFACE)
        for line in calling:
            line.send(b"".join(_headers(site, _GET, stream) for stream in range(1, 41, 2)))
        _still_serves(site)
        waiting = len(silent) + len(greeted) + len(calling)
        return f"{waiting} connections and {len(calling) * 20} calls wait; others are served"


def idle(site: Site, count: int = 10_000) -> str:
    """Connections that are good, and idle."""
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = site.memory
    with _lines(site, count):
        _still_serves(site)
        return f"{count} connections take {site.memory - before:.0f} MiB; others are served"


def no_more_files(site: Site) -> str:
    """More connections than the server may have files open."""
    process = site.server.process
    soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (site.descriptors + 30, hard))
    try:
        with site.new_channel() as channel:
            site.get(channel)
            with _lines(site, 200):
                site.get(channel)
        return "who is connected is served; who is not, waits"
    finally:
        process.rlimit(resource.RLIMIT_NOFILE, (soft, hard))


def hung_up_at_once(site: Site) -> str:
    """1,000 connections that are closed, or reset, as soon as they are made."""
    for number in range(1000):
        line = socket.create_connection(tuple(site.server.address.split(":")), timeout=10)  # type: ignore[arg-type]  # a port may be a word
        if number % 2:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()
    _still_serves(site)
    return "others are served"


#: In the order in which they are tried. Those that take longest stand last.
ATTACKS: Sequence[Callable[[Site], str]] = (
    floods,
    rapid_resets,
    slow_readers,
    half_open,
    hung_up_at_once,
    no_more_files,
    no_http2,
    broken_frames,
    lying_messages,
    bombs,
    idle,
)
