"""The table from errors to statuses."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from podium.jobs import errors
from podium.jobs.datasets import DatasetError
from podium.jobs.errors import FieldViolation, InvalidSpecError, PodiumError, StaleFenceError
from podium.server.status import TABLE, code_of, to_status

ERRORS = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PodiumError)}


def test_every_error_of_the_tree_has_a_status():
    assert ERRORS - {PodiumError, StaleFenceError} == set(TABLE)


def test_a_stale_fence_is_aborted_like_its_parent():
    assert grpc.StatusCode.ABORTED is code_of(StaleFenceError("left behind"))


def test_an_error_without_a_place_in_the_table_is_internal():
    assert grpc.StatusCode.INTERNAL is code_of(DatasetError("nothing is said about it"))


@pytest.mark.parametrize("count", [1, 50, 5000])
def test_a_status_fits_into_the_metadata_that_a_client_accepts(count):
    violations = [FieldViolation(field=f"spec.x[{number}]", description="é" * 1000) for number in range(count)]

    status = to_status(InvalidSpecError(violations))
    sent = len(status.details.encode()) * 3 + sum(len(value) * 4 / 3 for _, value in status.trailing_metadata)

    assert sent < 8192


def test_violations_that_do_not_fit_are_counted():
    violations = [FieldViolation(field=f"spec.x[{number}]", description="y" * 300) for number in range(100)]
    status = to_status(InvalidSpecError(violations))
    (packed,) = [value for key, value in status.trailing_metadata if key == "grpc-status-details-bin"]
    found, bad = status_pb2.Status.FromString(packed), error_details_pb2.BadRequest()
    assert found.details[1].Unpack(bad)

    told = len(bad.field_violations)
    assert 1 < told < 100
    assert f"(and {100 - told} more; mend these first)" in bad.field_violations[-1].description
