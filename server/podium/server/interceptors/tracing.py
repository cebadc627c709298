"""A span for every call, as part of its caller's trace where the caller has one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from podium.jobs.tracing import TRACE_PARENT as KEY
from podium.jobs.tracing import Tracer
from podium.server.context import TRACE_PARENT
from podium.server.interceptors._around import Around, Call
from podium.server.interceptors._outcome import full_method, outcome


class TracingInterceptor(Around):
    """In the chain only where traces are asked for.

    Args:
        tracer: makes spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Has what happens within, and the job that it creates, know the span."""
        error: BaseException | None = None
        given = dict(call.context.invocation_metadata() or ()).get(KEY, "")
        parent = given if isinstance(given, str) else ""
        with self._tracer.serving(full_method(call), parent, lambda: outcome(call, error)) as own:
            TRACE_PARENT.set(own)
            try:
                yield
            except BaseException as raised:
                error = raised
                raise
