"""Clients in processes of their own that call a server for a while, and what came of it."""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.clients import Calls
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
    clients_cpu: float
    """The clients' own."""


def put(
    serving: Serving, method: str, request: bytes, *, clients: int, seconds: float, request_id_field: int = 0
) -> Load:
    """Lets so many clients of benchmarks.service.clients call for so long; the first call of each is not measured.

    Args:
        serving: whom.
        method: such as "/podium.api.v1.JobService/GetJob".
        request: the message's bytes.
        clients: how many, each with one call at a time.
        seconds: for how long.
        request_id_field: the number of a string field that gets a new UUID in every call; 0: none.

    Raises:
        RuntimeError: a call failed; what came instead of an answer stands on standard error.
    """
    processes = min(_PROCESSES, clients)
    command = [sys.executable, "-m", "benchmarks.service.clients", serving.address, method, request.hex()]
    shares = [clients // processes + (place < clients % processes) for place in range(processes)]
    return run(serving, [[*command, str(share), str(seconds), str(request_id_field)] for share in shares])


def run(serving: Serving, commands: Sequence[Sequence[str]]) -> Load:
    """Lets programs that behave as benchmarks.service.clients does call a server.

    Args:
        serving: whom.
        commands: programs that say "ready", begin when they get a line, and print their `Calls` as JSON.

    Raises:
        RuntimeError: one of them ended without.
    """
    programs = [
        subprocess.Popen(words, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for words in commands
    ]
    try:
        for program in programs:
            assert program.stdout is not None
            if program.stdout.readline() != "ready\n":
                raise RuntimeError(f"a client of {serving.address} failed, and said why on standard error")
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
    if not all(answers):
        raise RuntimeError(f"a client of {serving.address} failed, and said why on standard error")
    calls = [Calls(**json.loads(answer)) for answer in answers]
    times = sorted(itertools.chain.from_iterable(made.times for made in calls))
    return Load(
        calls=len(times),
        rate=len(times) / elapsed,
        p50=times[len(times) // 2],
        p99=times[int(len(times) * 0.99)],
        cpu=used / len(times),
        clients_cpu=sum(made.cpu for made in calls) / len(times),
    )
