"""Clients in processes of their own, each with its own connection, calling again as soon as they are answered.

`python -m benchmarks.service.load` is such a process. It sends and takes bytes, so that its own share of the machine is
small, and begins on a line on its standard input, so that all begin together.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.service.site import Serving

_ROOT = Path(__file__).parents[2]
#: Processes that the clients are spread over.
_PROCESSES = 2


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of it."""

    calls: int
    rate: float
    """Calls a second."""
    p50: float
    """Seconds."""
    p99: float
    """Seconds."""
    cpu: float
    """The server's CPU seconds a call."""


def put(
    serving: Serving, method: str, request: bytes, *, clients: int, seconds: float, request_id_field: int = 0
) -> Load:
    """Lets so many clients call for so long.

    Args:
        serving: whom.
        method: such as "/podium.api.v1.JobService/GetJob".
        request: the message's bytes.
        clients: how many, each with one call at a time.
        seconds: for how long.
        request_id_field: the number of a string field that gets a new UUID in every call; 0: none.
    """
    processes = min(_PROCESSES, clients)
    command = [sys.executable, "-m", "benchmarks.service.load", serving.address, method, request.hex()]
    shares = [clients // processes + (place < clients % processes) for place in range(processes)]
    return run(serving, [[*command, str(share), str(seconds), str(request_id_field)] for share in shares])


def run(serving: Serving, commands: Sequence[Sequence[str]]) -> Load:
    """Lets programs that behave as this module does call a server.

    Args:
        serving: whom.
        commands: programs that say "ready", begin when they get a line, and print the seconds of each call as JSON.
    """
    programs = [
        subprocess.Popen(words, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for words in commands
    ]
    try:
        for program in programs:
            assert program.stdout is not None
            if program.stdout.readline() != "ready\n":
                raise RuntimeError(f"{program.args!r} does not begin")
        before, began = serving.cpu_seconds(), time.perf_counter()
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        answers = [program.stdout.readline() for program in programs if program.stdout is not None]
        used, elapsed = serving.cpu_seconds() - before, time.perf_counter() - began
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    times = sorted(took for answer in answers for took in json.loads(answer))
    return Load(
        calls=len(times),
        rate=len(times) / elapsed,
        p50=times[len(times) // 2],
        p99=times[int(len(times) * 0.99)],
        cpu=used / len(times),
    )


async def _call(address: str, method: str, request: bytes, clients: int, seconds: float, field: int) -> list[float]:
    options = [("grpc.use_local_subchannel_pool", 1)]  # without it all of them would share one connection
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(clients)]
    # A message that follows another of its type is merged into it.
    tag = bytes([field << 3 | 2, 36]) if field else b""
    times: list[float] = []

    def message() -> bytes:
        return request + tag + str(uuid.uuid4()).encode() if field else request

    async def one(channel: grpc.aio.Channel) -> None:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        while (began := time.perf_counter()) < end:
            await call(message())
            times.append(time.perf_counter() - began)

    for channel in channels:
        first: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        await first(message())
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.perf_counter() + seconds
    await asyncio.gather(*map(one, channels))
    for channel in channels:
        await channel.close()
    return times


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("method")
    parser.add_argument("request", type=bytes.fromhex)
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("field", type=int)
    told = parser.parse_args()
    print(json.dumps(asyncio.run(_call(*vars(told).values()))), flush=True)
