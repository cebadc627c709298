"""The error tree.

    PodiumError
    ├── InvalidSpecError          the request is wrong; lists every violation
    ├── NotFoundError             no such job, checkpoint, file
    ├── AlreadyExistsError        the request_id was used with another spec
    ├── FailedPreconditionError   not possible in the job's present state
    ├── OutOfRangeError           a cursor or offset outside what is kept
    ├── AbortedError              overtaken by somebody else; the caller may try again
    │   └── StaleFenceError       a newer attempt holds the job; the older one must leave
    ├── DataLossError             bytes no longer have their digest
    ├── UnavailableError          the service or its Redis cannot be reached; try again
    ├── DeadlineExceededError     no answer in time
    ├── UnauthenticatedError      who are you?
    ├── PermissionDeniedError     not for you
    ├── ResourceExhaustedError    a limit was reached
    ├── UnimplementedError        an older server than this rpc
    └── InternalError             a fault of ours; carries a reference

Every error knows its `reason` (UPPER_SNAKE, for programs), its sentence (for people, saying what to do next) and
its `metadata`. The server maps the tree to gRPC statuses in one place, and the client maps them back in one place.
docs/errors.md lists the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class FieldViolation:
    """One thing wrong with one field of a request."""

    field: str
    """The field's path, such as "spec.adamw.learning_rate"."""
    description: str
    """What is wrong and what to write instead."""


class PodiumError(Exception):
    """The base of everything that Podium raises on purpose."""

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})


class InvalidSpecError(PodiumError):
    """The request is wrong; `violations` lists everything that is, each naming its field."""

    default_reason = "INVALID_SPEC"

    def __init__(
        self, violations: Sequence[FieldViolation], *, reason: str | None = None, message: str | None = None
    ) -> None:
        text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        super().__init__(message or text or "the request is not valid", reason=reason)
        self.violations = tuple(violations)


class NotFoundError(PodiumError):
    """No such job, checkpoint or file; `violations` names the field where a spec names it."""

    default_reason = "NOT_FOUND"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations = tuple(violations)


class AlreadyExistsError(PodiumError):
    """The request_id was used with another spec."""

    default_reason = "REQUEST_ID_REUSED"


class FailedPreconditionError(PodiumError):
    """Not possible in the job's present state."""

    default_reason = "WRONG_STATE"


class OutOfRangeError(PodiumError):
    """A cursor or an offset lies outside what is kept."""

    default_reason = "OUT_OF_RANGE"


class AbortedError(PodiumError):
    """Overtaken by somebody else; the caller may try again."""

    default_reason = "ABORTED"


class StaleFenceError(AbortedError):
    """A newer attempt holds the job; the older one must leave without a trace."""

    default_reason = "STALE_FENCE"


class DataLossError(PodiumError):
    """Bytes no longer have their digest."""

    default_reason = "DIGEST_MISMATCH"


class UnavailableError(PodiumError):
    """The service or its Redis cannot be reached; try again."""

    default_reason = "UNAVAILABLE"


class DeadlineExceededError(PodiumError):
    """No answer in time; the request may still have been carried out."""

    default_reason = "DEADLINE_EXCEEDED"


class UnauthenticatedError(PodiumError):
    """The server does not know who is asking."""

    default_reason = "UNAUTHENTICATED"


class PermissionDeniedError(PodiumError):
    """The caller may not do this."""

    default_reason = "PERMISSION_DENIED"


class ResourceExhaustedError(PodiumError):
    """A limit was reached; `retry_after` seconds later it may not be. None: the same call will always be too much."""

    default_reason = "RESOURCE_EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after


class UnimplementedError(PodiumError):
    """The server knows no such rpc: it is older than its caller."""

    default_reason = "UNIMPLEMENTED"


class InternalError(PodiumError):
    """A fault of ours; the sentence carries a reference for the server's log."""

    default_reason = "INTERNAL"
