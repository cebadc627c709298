"""The one place that maps gRPC statuses back to the error tree; the table is total.

The server maps the tree to statuses with google.rpc details; what arrives without details was said by gRPC itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from podium.jobs.errors import (
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidSpecError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    PodiumError,
    ResourceExhaustedError,
    StaleFenceError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)


@dataclass(frozen=True, kw_only=True)
class Status:
    """A gRPC status with its google.rpc details; `reason` is None where gRPC itself, not our server, said it."""

    code: grpc.StatusCode
    message: str
    reason: str | None
    metadata: Mapping[str, str]
    violations: tuple[FieldViolation, ...]
    retry_after: float | None


def _invalid(status: Status) -> PodiumError:
    message = None if status.violations else status.message
    return InvalidSpecError(status.violations, reason=status.reason, message=message)


def _not_found(status: Status) -> PodiumError:
    return NotFoundError(status.message, reason=status.reason, metadata=status.metadata, violations=status.violations)


def _aborted(status: Status) -> PodiumError:
    cls = StaleFenceError if status.reason == StaleFenceError.default_reason else AbortedError
    return cls(status.message, reason=status.reason, metadata=status.metadata)


def _exhausted(status: Status) -> PodiumError:
    return ResourceExhaustedError(
        status.message, reason=status.reason, metadata=status.metadata, retry_after=status.retry_after
    )


def _plain(cls: type[PodiumError]) -> Callable[[Status], PodiumError]:
    return lambda status: cls(status.message, reason=status.reason, metadata=status.metadata)


#: Every status but OK.
TABLE: Mapping[grpc.StatusCode, Callable[[Status], PodiumError]] = {
    grpc.StatusCode.CANCELLED: _aborted,
    grpc.StatusCode.UNKNOWN: _plain(InternalError),
    grpc.StatusCode.INVALID_ARGUMENT: _invalid,
    grpc.StatusCode.DEADLINE_EXCEEDED: _plain(DeadlineExceededError),
    grpc.StatusCode.NOT_FOUND: _not_found,
    grpc.StatusCode.ALREADY_EXISTS: _plain(AlreadyExistsError),
    grpc.StatusCode.PERMISSION_DENIED: _plain(PermissionDeniedError),
    grpc.StatusCode.RESOURCE_EXHAUSTED: _exhausted,
    grpc.StatusCode.FAILED_PRECONDITION: _plain(FailedPreconditionError),
    grpc.StatusCode.ABORTED: _aborted,
    grpc.StatusCode.OUT_OF_RANGE: _plain(OutOfRangeError),
    grpc.StatusCode.UNIMPLEMENTED: _plain(UnimplementedError),
    grpc.StatusCode.INTERNAL: _plain(InternalError),
    grpc.StatusCode.UNAVAILABLE: _plain(UnavailableError),
    grpc.StatusCode.DATA_LOSS: _plain(DataLossError),
    grpc.StatusCode.UNAUTHENTICATED: _plain(UnauthenticatedError),
}

#: As gRPC reads it.
_ADDRESS = re.compile(r"(dns:(//[^/]*/)?|ipv[46]:)?[^/\s]+:[0-9]+|unix.*")

#: What gRPC itself says when a connection breaks in the middle of a stream.
_BROKEN = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED})


@contextmanager
def translated(target: str) -> Iterator[None]:
    """Raises what gRPC raises as a member of the error tree, without gRPC's traceback."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, target) from None


def from_rpc_error(error: Any, target: str) -> PodiumError:
    """The member of the error tree for what a call to `target` raised."""
    status = _status(error)
    if status.reason is None and (trouble := _of_tls(status.message)) is not None:
        return UnavailableError(f"{target} is no server to talk to: {trouble}", reason="TLS_FAILED")
    if status.reason is None and status.code is grpc.StatusCode.UNAVAILABLE:
        # gRPC's sentence is long; its end says why: "Connection refused".
        why = status.message.rpartition(": ")[2].rstrip("]")
        # Without a port gRPC tries another one than ours, and does not say so.
        hint = "" if _ADDRESS.fullmatch(target) else "; an address is HOST:PORT, such as 127.0.0.1:50051"
        sentence = f"no Podium server answers at {target} ({why}){hint}"
        return UnavailableError(sentence, metadata={"target": target})
    if status.reason is None and status.code in _BROKEN:
        # Said by the transport, so the same call may succeed; from the server INTERNAL means that it would not.
        return UnavailableError(f"the connection to {target} broke ({status.message})")
    if status.reason is None and status.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(f"{target} did not answer in time; it may still have done what was asked")
    return TABLE[status.code](status)


#: What stands in gRPC's sentence when TLS could not be agreed on, and what it means.
_TLS_TROUBLES = {
    "WRONG_VERSION_NUMBER": "it speaks without TLS, and we with it; leave --tls and PODIUM_TLS_* (or Tls) out",
    "CERTIFICATE_HAS_EXPIRED": "its certificate has expired",
    "certificate has expired": "its certificate has expired",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is signed by an authority that we do not know; name the file with "
    "the authority's certificate as PODIUM_TLS_CA or Tls(ca=...)",
    "Hostname Verification Check failed": "its certificate is for another name; use that name as the address, or say "
    "it as PODIUM_TLS_SERVER_NAME or Tls(server_name=...)",
    "create security handshaker": "a file of PODIUM_TLS_* or Tls is no certificate, or a key does not belong to its "
    "certificate",
    # All that a client learns, whether it came without TLS or without the certificate that was asked for.
    "Socket closed": "it hangs up at once; if it asks for TLS, see --tls and PODIUM_TLS_CA, and if it asks for a "
    "certificate of yours, PODIUM_TLS_CLIENT_CERT (or Tls)",
}


def _of_tls(message: str) -> str | None:
    if "failed to connect" not in message:  # a connection that breaks later is closed, too
        return None
    return next((trouble for words, trouble in _TLS_TROUBLES.items() if words in message), None)


def _status(error: Any) -> Status:
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry: float | None = None
    for detail in _details(error):
        detail.Unpack(info)
        detail.Unpack(violations)
        if detail.Unpack(info_of_retry := error_details_pb2.RetryInfo()):
            retry = info_of_retry.retry_delay.ToNanoseconds() / 1e9
    return Status(
        code=error.code(),
        message=error.details() or error.code().name,
        reason=info.reason or None,
        metadata=dict(info.metadata),
        violations=tuple(
            FieldViolation(field=item.field, description=item.description) for item in violations.field_violations
        ),
        retry_after=retry,
    )


def _details(error: Any) -> list[Any]:
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details contradict the status: not ours
        return []
    return list(status.details) if status else []
