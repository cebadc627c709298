"""The caller's trace, where the program that uses the client has one."""

from __future__ import annotations

import sys


def carried() -> tuple[tuple[str, str], ...]:
    """What a call carries of OpenTelemetry's present span: its traceparent, and nothing that the user put beside it.

    Nothing where the program has not imported OpenTelemetry, which is then not imported either.
    """
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
