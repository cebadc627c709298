"""What the log says about the call in hand: contextvars, which asyncio.to_thread carries along."""

from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
RPC: ContextVar[str] = ContextVar("rpc", default="")
JOB: ContextVar[str] = ContextVar("job", default="")
#: The W3C traceparent of the server's own span; empty: the call is not traced.
TRACE_PARENT: ContextVar[str] = ContextVar("trace_parent", default="")
