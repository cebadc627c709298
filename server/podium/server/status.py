"""The one place that maps the error tree to gRPC statuses; podium.client maps them back."""

from collections.abc import Iterable, Mapping, Sequence

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from podium.jobs import errors
from podium.jobs.errors import FieldViolation, PodiumError

DOMAIN = "podium"

TABLE: Mapping[type[PodiumError], grpc.StatusCode] = {
    errors.InvalidSpecError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
    errors.AbortedError: grpc.StatusCode.ABORTED,
    errors.DataLossError: grpc.StatusCode.DATA_LOSS,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnimplementedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

# In bytes. Trailing metadata is limited to 8 KiB, in base64, and holds the message twice, once percent-encoded; above
# that the caller gets nothing of it at all.
_MAX_MESSAGE = 600
_MAX_FIELD = 200
_MAX_DESCRIPTION = 400
_MAX_VIOLATIONS = 3000
_TRY_AGAIN_SECONDS = {grpc.StatusCode.UNAVAILABLE: 1}


def to_status(error: PodiumError) -> grpc.Status:
    """The status of an error, with its google.rpc details."""
    code = code_of(error)
    number: int = code.value[0]
    details = [_packed(detail) for detail in _details(error, code)]
    message = _cut(error.message, _MAX_MESSAGE)
    status: grpc.Status = rpc_status.to_status(status_pb2.Status(code=number, message=message, details=details))
    return status


def code_of(error: PodiumError) -> grpc.StatusCode:
    """The status code of the nearest class that the table names."""
    return next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), grpc.StatusCode.INTERNAL)


def _details(error: PodiumError, code: grpc.StatusCode) -> Iterable[Message]:
    yield error_details_pb2.ErrorInfo(domain=DOMAIN, reason=error.reason, metadata=error.metadata)
    if violations := getattr(error, "violations", ()):
        yield error_details_pb2.BadRequest(field_violations=_field_violations(violations))
    if (seconds := getattr(error, "retry_after", None) or _TRY_AGAIN_SECONDS.get(code)) is not None:
        yield error_details_pb2.RetryInfo(retry_delay=_duration(seconds))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _field_violations(violations: Sequence[FieldViolation]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    found: list[error_details_pb2.BadRequest.FieldViolation] = []
    left = _MAX_VIOLATIONS
    for violation in violations:
        item = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_FIELD), description=_cut(violation.description, _MAX_DESCRIPTION)
        )
        left -= item.ByteSize()
        if left < 0:
            found[-1].description += f" (and {len(violations) - len(found)} more; mend these first)"
            break
        found.append(item)
    return found


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, most: int) -> str:
    # Names of files need not be UTF-8, but a message must be.
    data = text.encode(errors="backslashreplace")
    return data.decode() if len(data) <= most else data[: most - 4].decode(errors="ignore") + " ..."
