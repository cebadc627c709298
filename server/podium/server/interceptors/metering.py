"""Counts calls by method and status, and how long they take."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from podium.server import meters
from podium.server.interceptors._around import Around, Call
from podium.server.interceptors._outcome import full_method, outcome


class MeteringInterceptor(Around):
    """Health and reflection are not counted; rpcs that there are not count as "other"."""

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Counts the call."""
        return _Metered(call)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wraps the handler, and counts a call that has none."""
        handler = await super().intercept_service(continuation, handler_call_details)
        if handler is None:
            # Whoever calls makes names up, and each would be a series of its own.
            meters.CALLS_STARTED.labels("unary", "other", "other").inc()
            meters.CALLS_HANDLED.labels("unary", "other", "other", "UNIMPLEMENTED").inc()
        return handler


class _Metered:
    """One call. A class, as it costs half of what a generator in contextlib does."""

    def __init__(self, call: Call) -> None:
        self._call = call
        service, _, method = full_method(call).partition("/")
        self._labels = ("server_stream" if call.streams else "unary", service, method)

    async def __aenter__(self) -> None:
        meters.CALLS_STARTED.labels(*self._labels).inc()
        if self._call.streams:
            meters.STREAMS_OPEN.labels(self._labels[-1]).inc()
        self._start = time.perf_counter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        meters.CALLS_HANDLED.labels(*self._labels, outcome(self._call, error)).inc()
        if self._call.streams:
            meters.STREAMS_OPEN.labels(self._labels[-1]).dec()
        else:
            meters.CALL_SECONDS.labels(*self._labels).observe(time.perf_counter() - self._start)
