"""A span for every call, as part of its caller's trace where the caller has one."""

from podium.jobs.tracing import TRACE_PARENT as KEY
from podium.jobs.tracing import Serving, Tracer
from podium.server.context import in_hand
from podium.server.interceptors._call import Call, Observer
from podium.server.interceptors._outcome import full_method


class Tracing(Observer):
    """Among the observers only where traces are asked for.

    Args:
        tracer: makes spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def before(self, call: Call) -> Serving:
        """Has what happens within, and the job that it creates, know the span."""
        given = dict(call.context.invocation_metadata() or ()).get(KEY, "")
        serving = self._tracer.serving(full_method(call), given if isinstance(given, str) else "")
        in_hand().trace_parent = serving.trace_parent
        return serving

    def after(self, call: Call, kept: Serving, status: str) -> None:
        """Ends the span."""
        kept.end(status)
