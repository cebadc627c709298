from collections.abc import Sequence

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from podium.client import InvalidSpecError, NotFoundError, UnavailableError
from podium.client._errors import TABLE, from_rpc_error
from podium.jobs import errors


class Call:
    """What grpc raises, as far as anybody looks at it."""

    def __init__(self, code: grpc.StatusCode, message: str = "", details: Sequence[Message] = ()) -> None:
        self._code, self._message = code, message
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        self._metadata = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self):
        return self._metadata


def info(reason: str, **metadata: str) -> Message:
    detail: Message = error_details_pb2.ErrorInfo(reason=reason, domain="podium", metadata=metadata)
    return detail


def test_every_status_but_ok_has_its_error():
    assert set(grpc.StatusCode) - {grpc.StatusCode.OK} == set(TABLE)


def test_every_error_that_the_server_can_send_comes_back_as_itself():
    names = {
        "INVALID_ARGUMENT": errors.InvalidSpecError,
        "NOT_FOUND": errors.NotFoundError,
        "ALREADY_EXISTS": errors.AlreadyExistsError,
        "FAILED_PRECONDITION": errors.FailedPreconditionError,
        "OUT_OF_RANGE": errors.OutOfRangeError,
        "ABORTED": errors.AbortedError,
        "DATA_LOSS": errors.DataLossError,
        "UNAVAILABLE": errors.UnavailableError,
        "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
        "UNAUTHENTICATED": errors.UnauthenticatedError,
        "PERMISSION_DENIED": errors.PermissionDeniedError,
        "RESOURCE_EXHAUSTED": errors.ResourceExhaustedError,
        "UNIMPLEMENTED": errors.UnimplementedError,
        "INTERNAL": errors.InternalError,
    }

    for name, cls in names.items():
        error = from_rpc_error(Call(grpc.StatusCode[name], "why", [info("A_REASON", key="value")]), "here")

        assert cls is type(error)
        assert "A_REASON" == error.reason
        assert "why" in str(error)


def test_violations_come_back_field_by_field():
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field="spec.m", description="too small"),
            error_details_pb2.BadRequest.FieldViolation(field="spec.k", description="does not sum to 1"),
        ]
    )

    error = from_rpc_error(Call(grpc.StatusCode.INVALID_ARGUMENT, "2 fields", [info("INVALID_SPEC"), bad]), "here")

    assert isinstance(error, InvalidSpecError)
    assert ["spec.m", "spec.k"] == [violation.field for violation in error.violations]
    assert "spec.m: too small; spec.k: does not sum to 1" == str(error)


def test_a_missing_path_is_not_found_and_names_its_field():
    bad = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="spec.image_folder.train", description="?")]
    )

    error = from_rpc_error(Call(grpc.StatusCode.NOT_FOUND, "no", [info("DATASET_NOT_FOUND"), bad]), "here")

    assert isinstance(error, NotFoundError)
    assert "spec.image_folder.train" == error.violations[0].field


def test_the_metadata_survives():
    error = from_rpc_error(Call(grpc.StatusCode.OUT_OF_RANGE, "?", [info("X", oldest_sequence="41")]), "here")

    assert {"oldest_sequence": "41"} == error.metadata


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED])
def test_a_connection_that_breaks_may_be_tried_again_but_a_fault_of_the_server_not(code):
    broken = from_rpc_error(Call(code, "Received RST_STREAM with error code 2"), "here")
    fault = from_rpc_error(Call(grpc.StatusCode.INTERNAL, "fault", [info("INTERNAL", reference="r1")]), "here")

    assert isinstance(broken, UnavailableError)
    assert not isinstance(fault, UnavailableError)


def test_an_unreachable_server_is_named_with_the_reason_and_nothing_else():
    long = "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:5: Connection refused"

    error = from_rpc_error(Call(grpc.StatusCode.UNAVAILABLE, long), "1.2.3.4:5")

    assert "no Podium server answers at 1.2.3.4:5 (Connection refused)" == str(error)


def test_an_address_that_is_none_is_told_how_one_looks():
    # As grpcio 1.85 says it, which for an address without a port tries 443.
    unresolved = "errors resolving {0}: [field:hostname lookup error:address lookup failed for {0}: Misformatted name]"
    refused = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:443: Connection refused"

    for target in ("http://127.0.0.1:1", "localhost", ":1", "a b:1"):
        for said, why in ((unresolved.format(target), "Misformatted name"), (refused, "Connection refused")):
            told = str(from_rpc_error(Call(grpc.StatusCode.UNAVAILABLE, said), target))
            hint = "; an address is HOST:PORT, such as 127.0.0.1:50051"
            assert f"no Podium server answers at {target} ({why}){hint}" == told
    for target in ("127.0.0.1:1", "[::1]:1", "dns:///podium.example.com:1", "unix:/run/podium.sock"):
        assert "HOST:PORT" not in str(from_rpc_error(Call(grpc.StatusCode.UNAVAILABLE, refused), target))
