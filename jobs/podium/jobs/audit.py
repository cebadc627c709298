"""The audit trail's events: who asked for what, and what came of it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One call that changed something, or was refused."""

    id: str = ""
    """Its place in the trail, given by the ledger; a later one is greater."""
    time: datetime | None = None
    actor: str = ""
    """`Token.name`, or "anonymous"."""
    project: str = ""
    method: str = ""
    """Such as "JobService/CancelJob"."""
    target: str = ""
    """A job's, a checkpoint's, a machine's or a token's id; empty: none."""
    status: str = ""
    """The name of the gRPC status."""
    request_id: str = ""
    peer: str = ""
    """As gRPC writes it, such as "ipv4:10.0.0.7:41234"."""
