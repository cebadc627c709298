"""Counts calls by method and status, and how long they take."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from types import TracebackType
from typing import Any

import grpc
from prometheus_client import Counter

from podium.server import meters
from podium.server.interceptors._around import Around, Call
from podium.server.interceptors._outcome import full_method, outcome


class MeteringInterceptor(Around, grpc.aio.ServerInterceptor):
    """Health and reflection are not counted; rpcs that there are not count as "other"."""

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Counts the call."""
        return _Metered(call, _of_method(full_method(call), call.streams))

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Counts a call that has no handler."""
        handler = await continuation(handler_call_details)
        if handler is None:
            # Whoever calls makes names up, and each would be a series of its own.
            other = _of_method("other/other", False)
            other.started.inc()
            other.handled("UNIMPLEMENTED").inc()
        return handler


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


class _Metered:
    """One call. A class, as it costs less than a generator in contextlib."""

    def __init__(self, call: Call, its: _Meters) -> None:
        self._call = call
        self._its = its

    async def __aenter__(self) -> None:
        self._its.started.inc()
        if self._its.open is not None:
            self._its.open.inc()
        self._start = time.perf_counter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._its.handled(outcome(self._call, error)).inc()
        if self._its.open is not None:
            self._its.open.dec()
        if self._its.seconds is not None:
            self._its.seconds.observe(time.perf_counter() - self._start)
