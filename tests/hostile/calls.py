"""Sends hostile requests, a batch at a time, and tells which answers are against the contract."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from podium.api.v1 import job_service_pb2 as api
from tests.hostile.contract import Rpc, rpcs
from tests.hostile.messages import Writer
from tests.hostile.site import Site

_AT_A_TIME = 8
#: Seconds for an answer; a stream that goes on is left.
_PATIENCE, _LISTENING = 30.0, 0.3
#: Metadata that is no good; what gRPC's own client refuses to send is not among it.
_METADATA: Sequence[tuple[tuple[str, str | bytes], ...]] = (
    (),
    (("authorization", "Bearer podium_tok-0000000000000000_" + "0" * 64),),
    (("authorization", "Bearer " + "é".encode().hex()),),
    (("authorization", "Basic eDp4"),),
    (("authorization-bin", b"\xff\x00"),),
)
_AND: Sequence[tuple[tuple[str, str | bytes], ...]] = (
    (("x-request-id", "../" * 30),),
    (("x-request-id", "a" * 5000),),
    (("traceparent", "00-" + "f" * 32 + "-" + "0" * 16 + "-zz"),),
    (("x-noise-bin", bytes(range(256)) * 8),),
    tuple((f"x-{number}", "y") for number in range(100)),
)


@dataclass
class Outcome:
    """What came of calls."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each status came, by rpc."""
    violations: list[str] = field(default_factory=list)
    created: set[str] = field(default_factory=set)
    """The jobs that calls made."""

    @property
    def calls(self) -> int:
        return sum(counter.total() for counter in self.statuses.values())


class Fuzzer:
    """Makes hostile calls of every rpc.

    Args:
        site: what is called.
        seed: of the first batch; every batch has its own.
    """

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._seeds = itertools.count(seed)
        self._rpcs = list(rpcs())
        self._lock = threading.Lock()
        self.outcome = Outcome()

    def batch(self, calls: int) -> None:
        """Makes so many calls, `_AT_A_TIME` at once."""
        seed = next(self._seeds)
        writer = Writer(seed, _known(self._site), self._site.spec)
        todo = [
            (rpc, writer.request(rpc.request), number)
            for number, rpc in zip(range(calls), itertools.cycle(self._rpcs), strict=False)
        ]
        with self._site.new_channel() as channel, ThreadPoolExecutor(_AT_A_TIME) as threads:
            list(threads.map(lambda one: self._call(channel, seed, *one), todo))

    def _call(self, channel: grpc.Channel, seed: int, rpc: Rpc, request: bytes, number: int) -> None:
        status, answer, sentence = self._status(channel, rpc, request, number)
        with self._lock:
            self.outcome.statuses.setdefault(rpc.name, Counter())[status] += 1
            if status not in rpc.statuses:
                self.outcome.violations.append(
                    f"{rpc.name}: {status}, which is not documented: {sentence[:200]} (seed {seed}, call {number})"
                )
            if status == "OK" and rpc.name == "JobService/CreateJob":
                self.outcome.created.add(api.CreateJobResponse.FromString(answer).job.id)

    def _status(self, channel: grpc.Channel, rpc: Rpc, request: bytes, number: int) -> tuple[str, bytes, str]:
        rng = random.Random(number)
        metadata = self._site.metadata if rng.random() < 0.9 else rng.choice(_METADATA)
        if rng.random() < 0.1:
            metadata = (*metadata, *rng.choice(_AND))
        # Any: without serializers the types know no request.
        method: Any = (channel.unary_stream if rpc.streams else channel.unary_unary)(rpc.path)
        try:
            if not rpc.streams:
                return "OK", method(request, timeout=_PATIENCE, metadata=metadata), ""
            for _ in method(request, timeout=_LISTENING, metadata=metadata):
                pass
        except grpc.RpcError as error:
            ended: Any = error
            return ended.code().name, b"", ended.details() or ""
        return "OK", b"", ""


def _known(site: Site) -> Mapping[str, Sequence[Any]]:
    """What gets calls past the door, by field: jobs of today, as those of the batch before may be deleted."""
    jobs, data = (site.submit(), site.running()), str(site.data)
    return {
        "job_id": jobs,
        "after_sequences": jobs,
        "project": ("", "default", "other"),
        "pool": ("", "default"),
        "train": (f"{data}/train", f"{data}/train/class00/1.png", f"{data}/../train"),
        "filter": ("", "state = QUEUED", 'labels.a = "b" OR NOT create_time > "2026-01-01T00:00:00Z"', "state = "),
        "order_by": ("", "create_time", "create_time desc"),
        "page_size": (0, 1, 1000),
        "page_token": ("",),
        "labels": ("a", "team"),
        "request_id": ("", "00000000-0000-0000-0000-000000000000"),
        "display_name": ("x",),
        "role": (1, 2, 3),
        "seconds": (0, 60, -1),
        "nanos": (0,),
        "follow": (False, True),
        "scaler_metadata": ("pool", "slotsPerMachine"),
    }
