"""What the log says about the call in hand: contextvars, which asyncio.to_thread carries along."""

from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
RPC: ContextVar[str] = ContextVar("rpc", default="-")
JOB: ContextVar[str] = ContextVar("job", default="-")
