"""WatchJobs over real gRPC: many jobs on one stream, through the death of the server, and its limits."""

from collections.abc import Iterator

import grpc
import pytest

from podium.api.v1 import event_pb2
from podium.api.v1 import job_service_pb2 as api
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.states import State

Told = dict[str, list[event_pb2.JobEvent]]


@pytest.fixture
def running(store, request_for):
    """Makes jobs on a server and plays the attempts that run them."""

    def begin(server, count):
        assignments = []
        for slot in range(count):
            job_id = server.jobs.CreateJob(request_for(), timeout=20).job.id
            assignments.append(store.dispatch(job_id, "played", slot))
            store.begin(assignments[-1])
        return assignments

    return begin


def told(messages, into: Told) -> Iterator[event_pb2.JobEvent]:
    """Adds the history in a stream's messages to `into`, by job, as it comes."""
    for message in messages:
        if message.event.sequence:
            into.setdefault(message.event.job_id, []).append(message.event)
        yield message.event


def ledger(store, job_id: str) -> list[event_pb2.JobEvent]:
    """A job's events, as the ledger has them."""
    events = []
    for stored in store.events(job_id, after=0).events:
        events.append(event_pb2.JobEvent.FromString(stored.data))
        events[-1].sequence = stored.sequence
    return events


def test_after_sigkill_of_the_server_the_parts_of_a_watch_of_many_are_together_what_the_ledger_has(
    new_server, store, running
):
    server = new_server()
    assignments = running(server, 4)
    seen: Told = {}

    def report(first: int, last: int) -> None:
        for batch in range(first, last + 1):
            for assignment in assignments:
                line = LogBatch(lines=(LogLine(text=f"line {batch}"),))
                store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1 / batch}), line])

    def watch() -> Iterator[event_pb2.JobEvent]:
        after = {one.job_id: seen[one.job_id][-1].sequence if one.job_id in seen else 0 for one in assignments}
        return told(server.jobs.WatchJobs(api.WatchJobsRequest(after_sequences=after), timeout=60), seen)

    report(1, 10)
    watching = watch()
    while sum(map(len, seen.values())) < 50:
        next(watching)
    server.kill()
    with pytest.raises(grpc.RpcError) as caught:
        list(watching)
    report(11, 20)
    store.finish(assignments[0], State.SUCCEEDED, reason="done")
    server.start()
    watching = watch()
    next(watching)
    assignments, (ended, *_) = assignments[1:], assignments
    report(21, 25)
    for assignment in assignments:
        store.finish(assignment, State.FAILED, reason="broke")
    list(watching)

    assert grpc.StatusCode.UNAVAILABLE == caught.value.code()
    everyone = [ended.job_id, *(assignment.job_id for assignment in assignments)]
    assert {job_id: ledger(store, job_id) for job_id in everyone} == seen


def test_one_that_nobody_knows_is_not_found_and_named(server, running, refused):
    (assignment,) = running(server, 1)
    request = api.WatchJobsRequest(after_sequences={assignment.job_id: 0, "job-none": 0})

    status = refused(server.jobs.WatchJobs, request)

    assert (grpc.StatusCode.NOT_FOUND, "job-none") == (status.code, status.metadata["job_id"])


def test_one_whose_place_is_in_the_future_is_out_of_range_and_named(server, running, refused):
    first, second = running(server, 2)
    request = api.WatchJobsRequest(after_sequences={first.job_id: 0, second.job_id: 99})

    status = refused(server.jobs.WatchJobs, request)

    assert grpc.StatusCode.OUT_OF_RANGE == status.code
    assert (second.job_id, "1") == (status.metadata["job_id"], status.metadata["oldest_sequence"])


@pytest.mark.parametrize("count", [0, 1000, 1001])
def test_no_job_and_more_than_a_thousand_are_refused_by_the_name_of_the_field(server, refused, count):
    request = api.WatchJobsRequest(after_sequences={f"job-{number}": 0 for number in range(count)})

    status = refused(server.jobs.WatchJobs, request)

    if count == 1000:
        assert grpc.StatusCode.NOT_FOUND == status.code
    else:
        assert (grpc.StatusCode.INVALID_ARGUMENT, {"after_sequences"}) == (status.code, set(status.fields))
