"""What is told to the world outside: that a job has ended, or that an attempt of it stalled."""

import hashlib
import hmac
import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from podium.jobs.job import Cause
from podium.jobs.states import State

#: What may be told, in the order of docs/webhooks.md.
EVENTS = ("SUCCEEDED", "FAILED", "CANCELLED", "STALLED")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that happened. Nothing of the spec is in it, and nothing that a user wrote."""

    id: str
    """The same however often it is delivered."""
    event: str
    """One of EVENTS."""
    job_id: str
    project: str
    state: State
    """The job's state after it."""
    attempt: int
    """The number of the job's last attempt; 0: it had none."""
    time: datetime
    cause: Cause | None = None
    """Why the job failed, or the attempt ended; None where nothing went wrong."""
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What proves that a body is from whoever has the secret, and when it was sent: HMAC-SHA256 in hexadecimal."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def to_json(notice: Notice) -> bytes:
    """One JSON object with the names of the dataclass; times in RFC 3339, UTC."""
    values = {field.name: getattr(notice, field.name) for field in fields(notice)}
    return json.dumps({name: _plain(value) for name, value in values.items()}).encode()


def from_json(data: bytes) -> Notice:
    """The notice. What a newer version put there as well is left out.

    Raises:
        ValueError: it is none.
    """
    try:
        values = json.loads(data)
        known = {field.name: values[field.name] for field in fields(Notice) if field.name in values}
        for name in ("time", "create_time", "start_time", "end_time"):
            known[name] = known[name] and datetime.fromisoformat(known[name])
        cause = known["cause"] and Cause[known["cause"]]
        return Notice(**{**known, "state": State[known["state"]], "cause": cause})
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"this is no notice: {error!r}") from error


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.name if isinstance(value, State | Cause) else value
