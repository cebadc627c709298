"""`python -m benchmarks.service.watchers ADDRESS METHOD CONNECTIONS`: many streams in one process, read to their end.

The first line of its standard input is JSON, the request of each stream in hexadecimal. It says "ready" when each has
had its first message, and at the end one line of JSON: what `Seen` has.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import grpc
import numpy as np

from benchmarks.service.site import ROOT, Serving
from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.job_service_pb2 import WatchJobResponse


@dataclass(kw_only=True)
class Seen:
    """What came."""

    messages: int = 0
    events: int = 0
    wrong: int = 0
    """Events that were not the next ones of their job."""
    points: int = 0
    last: float = 0.0
    """When the last message came, in seconds since 1970."""
    lags: list[float] = field(default_factory=list)
    """Median, 99 % and most, in seconds: of points from their report, the value; of other events from their writing."""


class Watching:
    """The program, started and with all its streams open."""

    def __init__(self, serving: Serving, method: str, requests: Sequence[bytes], *, connections: int) -> None:
        command = [sys.executable, "-m", "benchmarks.service.watchers", serving.address, method, str(connections)]
        self._program = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps([request.hex() for request in requests]) + "\n")
        self._program.stdin.flush()
        if self._line() != "ready\n":
            raise RuntimeError("the watchers do not begin")

    def seen(self) -> Seen:
        """What came, once all streams have ended."""
        seen = Seen(**json.loads(self._line()))
        self._program.communicate()
        return seen

    def _line(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline()


class _Reader:
    def __init__(self) -> None:
        self.seen = Seen()
        self._lags: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []

    async def read(self, channel: grpc.aio.Channel, method: str, request: bytes, first: asyncio.Semaphore) -> None:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        last = 0
        async for data in call(request):
            response = WatchJobResponse.FromString(data)
            self.seen.messages += 1
            for event in (response.event, *response.more):
                if event.HasField("snapshot"):
                    last = event.snapshot.sequence
                    first.release()
                elif event.sequence > 0:
                    self.seen.wrong += event.sequence != last + 1
                    last = event.sequence
                    self._note(event)

    def _note(self, event: JobEvent) -> None:
        now = self.seen.last = time.time()
        self.seen.events += 1
        times = [event.time.ToNanoseconds() / 1e9]
        for series in event.metrics.series:
            self.seen.points += len(series.values)
            times = list(series.values)
            self._lags.append(now - np.array(times))
        if not event.metrics.series:
            self._lags.append(now - np.array(times))

    def summary(self) -> Seen:
        lags = np.concatenate(self._lags) if self._lags else np.zeros(1)
        self.seen.lags = [float(np.quantile(lags, part)) for part in (0.5, 0.99, 1.0)]
        return self.seen


async def _watch(address: str, method: str, connections: int, requests: Sequence[bytes]) -> Seen:
    options = [("grpc.use_local_subchannel_pool", 1)]  # without it all of them would share one connection
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(connections)]
    reader, first = _Reader(), asyncio.Semaphore(0)
    streams = [
        asyncio.create_task(reader.read(channels[place % connections], method, request, first))
        for place, request in enumerate(requests)
    ]
    for _ in requests:
        await first.acquire()
    print("ready", flush=True)
    await asyncio.gather(*streams)
    for channel in channels:
        await channel.close()
    return reader.summary()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("method")
    parser.add_argument("connections", type=int)
    told = parser.parse_args()
    asked = [bytes.fromhex(request) for request in json.loads(sys.stdin.readline())]
    print(json.dumps(asdict(asyncio.run(_watch(told.address, told.method, told.connections, asked)))), flush=True)
