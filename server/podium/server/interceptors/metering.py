"""Counts calls by method and status, and how long they take."""

import time
from functools import cache
from typing import Any

import grpc
from prometheus_client import Counter

from podium.server import meters
from podium.server.interceptors._call import Call, Observer
from podium.server.interceptors._outcome import full_method


class Metering(Observer, grpc.GenericRpcHandler):
    """Health is not counted; rpcs that there are not count as "other"."""

    def before(self, call: Call) -> tuple["_Meters", float]:
        """Counts the call."""
        its = _of_method(full_method(call), call.streams)
        its.started.inc()
        if its.open is not None:
            its.open.inc()
        return its, time.perf_counter()

    def after(self, call: Call, kept: tuple["_Meters", float], status: str) -> None:
        """Counts its status, and how long it took."""
        its, start = kept
        its.handled(status).inc()
        if its.open is not None:
            its.open.dec()
        if its.seconds is not None:
            its.seconds.observe(time.perf_counter() - start)

    def service(self, handler_call_details: Any) -> None:
        """Counts a call that has no handler; gRPC asks the last of its generic handlers when no other has one."""
        # Whoever calls makes names up, and each would be a series of its own.
        other = _of_method("other/other", False)
        other.started.inc()
        other.handled("UNIMPLEMENTED").inc()


class _Meters:
    """Those of one method. Looked up once: prometheus_client takes a lock and builds a key for every labels()."""

    def __init__(self, method: str, streams: bool) -> None:
        service, _, name = method.partition("/")
        labels = ("server_stream" if streams else "unary", service, name)
        self.started = meters.CALLS_STARTED.labels(*labels)
        self.open = meters.STREAMS_OPEN.labels(name) if streams else None
        self.seconds = None if streams else meters.CALL_SECONDS.labels(*labels)
        self._labels = labels
        self._handled: dict[str, Counter] = {}

    def handled(self, code: str) -> Counter:
        """Calls that ended with a status."""
        if (counter := self._handled.get(code)) is None:
            counter = self._handled[code] = meters.CALLS_HANDLED.labels(*self._labels, code)
        return counter


# As many as the contract has methods: only calls that have a handler come here.
_of_method = cache(_Meters)
