"""What the log says about the call in hand: a context variable, which asyncio.to_thread carries along."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class InHand:
    """A call, as the log names it. Threads that work for it share it."""

    request_id: str = ""
    rpc: str = ""
    job_id: str = ""
    """As the caller wrote it, where the call names one."""
    trace_parent: str = ""
    """The W3C traceparent of the server's own span; empty: the call is not traced."""


_IN_HAND: ContextVar[InHand] = ContextVar("in_hand")


def begin_call(rpc: str, request_id: str, job_id: str) -> None:
    """From now on this is the call in hand."""
    _IN_HAND.set(InHand(request_id, rpc, job_id))


def in_hand() -> InHand:
    """The call in hand; outside of any, one that nobody made."""
    return _IN_HAND.get(None) or InHand()
