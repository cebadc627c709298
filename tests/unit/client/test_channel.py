"""What the channel tries again, against a real gRPC server that fails as it is told to."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest

from podium.api.v1 import job_service_pb2, job_service_pb2_grpc
from podium.client import (
    Client,
    ImageFolder,
    Job,
    JobSpec,
    LinearHead,
    ResourceExhaustedError,
    Softmax,
    State,
    UnavailableError,
    UnimplementedError,
)
from podium.client._channel import STREAMS
from podium.jobs.wire import to_proto
from podium.server.assembly import SERVICES
from podium.server.status import to_status

SPEC = JobSpec(backbone="x", tuning=LinearHead(), dataset=ImageFolder(train="/x"), sorter=Softmax())


@dataclass
class Desk(job_service_pb2_grpc.JobServiceServicer):
    """Fails the first calls with these statuses, then accepts."""

    failures: list[grpc.StatusCode] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    """After so many seconds it is less."""
    request_ids: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)

    def PauseJob(self, request, context):
        self.paused.append(request.job_id)
        if self.failures:
            context.abort(self.failures.pop(0), "not now")
        job = Job(id=request.job_id, project="default", spec=SPEC, state=State.PAUSED)
        return job_service_pb2.PauseJobResponse(job=to_proto(job))

    def CreateJob(self, request, context):
        self.request_ids.append(request.request_id)
        if self.busy:
            error = ResourceExhaustedError("later", reason="TOO_MANY_CALLS", retry_after=self.busy.pop(0))
            context.abort_with_status(to_status(error))
        if self.failures:
            context.abort(self.failures.pop(0), "not now")
        job = Job(id="job-1", project="default", spec=SPEC, state=State.QUEUED)
        return job_service_pb2.CreateJobResponse(job=to_proto(job))


@pytest.fixture
def desk() -> Desk:
    return Desk()  # type: ignore[abstract]  # at run time it is not


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(desk, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with Client(f"127.0.0.1:{port}") as client:
            yield client
        server.stop(None).wait()


def test_a_submission_that_finds_the_server_away_is_repeated_under_the_same_request_id(desk, client):
    desk.failures = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]

    assert "job-1" == client.submit(SPEC).id

    assert 3 == len(desk.request_ids)
    assert 1 == len(set(desk.request_ids))


def test_a_submission_that_a_server_had_not_begun_when_it_stopped_is_repeated(desk, client):
    """gRPC ends such calls as if they had been cancelled."""
    desk.failures = [grpc.StatusCode.CANCELLED]

    assert "job-1" == client.submit(SPEC).id

    assert 2 == len(desk.request_ids)
    assert 1 == len(set(desk.request_ids))


def test_a_pause_that_finds_the_server_away_is_asked_for_again(desk, client):
    desk.failures = [grpc.StatusCode.UNAVAILABLE]

    assert State.PAUSED == client.job("job-7").pause().state

    assert ["job-7"] * 2 == desk.paused


def test_what_is_one_call_too_many_is_made_again_when_the_server_says(desk, client):
    desk.busy = [0.05, 0.05]
    began = time.monotonic()

    assert "job-1" == client.submit(SPEC).id

    assert 3 == len(desk.request_ids)
    assert 1 == len(set(desk.request_ids))
    assert 0.1 <= time.monotonic() - began


def test_what_is_too_much_for_longer_than_a_call_may_take_is_given_up_at_once(desk, client):
    desk.busy = [3600.0]

    with pytest.raises(ResourceExhaustedError) as caught:
        client.submit(SPEC)

    assert 3600 == caught.value.retry_after
    assert 1 == len(desk.request_ids)


def test_two_submissions_have_two_request_ids(desk, client):
    client.submit(SPEC)
    client.submit(SPEC)

    assert 2 == len(set(desk.request_ids))


def test_a_server_that_stays_away_is_given_up_after_four_tries(desk, client):
    desk.failures = [grpc.StatusCode.UNAVAILABLE] * 9

    with pytest.raises(UnavailableError):
        client.submit(SPEC)

    assert 4 == len(desk.request_ids)


def test_what_would_fail_again_is_not_repeated(desk, client):
    desk.failures = [grpc.StatusCode.UNIMPLEMENTED]

    with pytest.raises(UnimplementedError, match="not now"):
        client.submit(SPEC)

    assert 1 == len(desk.request_ids)


def test_no_stream_is_left_to_grpc_to_repeat():
    streaming = {
        (service.full_name, method.name)
        for service in SERVICES.values()
        for method in service.methods
        if method.server_streaming
    }

    assert streaming == {(service, method) for service, methods in STREAMS.items() for method in methods}
