"""Traces, where OpenTelemetry is installed and asked for: the only module that knows it.

It is asked for by OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_ENDPOINT or its form for traces; the others apply
as they stand. Where it is not, or where it is not installed (`pip install "podium[otel]"`), nothing of it is imported.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_LOG = logging.getLogger(__name__)
#: The name of the W3C's header, in the metadata of a call.
TRACE_PARENT = "traceparent"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_WELL_FORMED = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(trace_parent: str) -> str:
    """Of a traceparent; empty where it is none."""
    found = _WELL_FORMED.fullmatch(trace_parent)
    return found[1] if found else ""


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are asked for."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environ.get(name) for name in _ENDPOINTS)


@dataclass(frozen=True, kw_only=True)
class Spell:
    """A span that is over: from when to when something went on."""

    name: str
    start: datetime
    end: datetime
    within: tuple[Spell, ...] = ()
    """Its parts."""
    facts: Mapping[str, str | int] = field(default_factory=dict)


class Serving:
    """The span of a call in hand.

    Args:
        span: OpenTelemetry's.
        trace_parent: its own traceparent, empty where it is not sampled.
    """

    def __init__(self, span: Span, trace_parent: str) -> None:
        self._span = span
        self.trace_parent = trace_parent

    def end(self, status: str) -> None:
        """Ends it, with the name of the call's status."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("rpc.response.status_code", status)
        if status in _FAULTS:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Tracer:
    """Makes spans and sends them where OTEL_EXPORTER_OTLP_* says, in a thread of its own.

    Args:
        provider: OpenTelemetry's.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("podium")
        self._wire = TraceContextTextMapPropagator()

    def serving(self, method: str, trace_parent: str) -> Serving:
        """The span of a call that a server answers.

        Args:
            method: such as "podium.api.v1.JobService/GetJob".
            trace_parent: the caller's; empty or made up: the span begins a trace of its own.
        """
        from opentelemetry.trace import SpanKind

        service, _, name = method.rpartition("/")
        facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        span = self._tracer.start_span(method, self._context(trace_parent), SpanKind.SERVER, facts)
        return Serving(span, self._carried(span))

    def tell(self, spell: Spell, trace_parent: str) -> None:
        """Sends a span that is over, and its parts, as a part of somebody else's trace."""
        self._tell(spell, self._context(trace_parent))

    def _tell(self, spell: Spell, context: Context) -> None:
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(
            spell.name, context, attributes=dict(spell.facts), start_time=_nanoseconds(spell.start)
        )
        for part in spell.within:
            self._tell(part, set_span_in_context(span, context))
        span.end(_nanoseconds(spell.end))

    def close(self) -> None:
        """Sends what is left. Blocks, for as long as OTEL_EXPORTER_OTLP_TIMEOUT lets it."""
        self._provider.shutdown()

    def _context(self, trace_parent: str) -> Context:
        return self._wire.extract({TRACE_PARENT: trace_parent}) if trace_id(trace_parent) else self._wire.extract({})

    def _carried(self, span: Span) -> str:
        from opentelemetry.trace import set_span_in_context

        if not span.get_span_context().trace_flags.sampled:
            return ""
        carrier: dict[str, str] = {}
        self._wire.inject(carrier, set_span_in_context(span))
        return carrier.get(TRACE_PARENT, "")


#: By the convention of OpenTelemetry for servers: what is the server's fault.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def tracer(service: str, environ: Mapping[str, str] = os.environ) -> Tracer | None:
    """What makes spans, where traces are asked for.

    Args:
        service: the program's name, such as "podium-server", unless OTEL_SERVICE_NAME says another.
        environ: whether they are asked for; where to, OpenTelemetry reads for itself.
    """
    if not wanted(environ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        _LOG.warning('traces are asked for, and there is no %s: pip install "podium[otel]"', error.name)
        return None
    name = {} if environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(name), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider)


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1e9)
