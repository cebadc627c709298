"""Watching over real gRPC: order, resuming, many and slow watchers, and everything being killed."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from podium.api.v1 import event_pb2
from podium.api.v1 import job_service_pb2 as api
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.states import State
from podium.jobs.store import Assignment

JOB_EVENTS = 4
"""What a job that runs and ends has beside its reports: queued, starting, running, ended."""


@pytest.fixture
def running(store, request_for):
    """Makes a job on a server and plays the attempt that runs it."""

    def begin(server):
        job_id = server.jobs.CreateJob(request_for(), timeout=20).job.id
        assignment = store.dispatch(job_id, "played", 0)
        store.begin(assignment)
        return assignment

    return begin


def report(store, assignment: Assignment, first: int, last: int) -> None:
    for step in range(first, last + 1):
        store.append(assignment, step, [MetricBatch.at(step, {"loss": float(step)})])


def watch(server, job_id: str, after: int = 0, timeout: float = 60) -> Iterator[event_pb2.JobEvent]:
    for message in server.jobs.WatchJob(api.WatchJobRequest(job_id=job_id, after_sequence=after), timeout=timeout):
        yield message.event


def history(events) -> list[int]:
    """The sequences of what is history."""
    return [event.sequence for event in events if event.sequence]


def reason_of(error: Any) -> tuple[str, dict[str, str]]:
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info)
    return info.reason, dict(info.metadata)


def test_a_watch_begins_with_the_job_and_ends_with_its_end(server, store, running):
    assignment = running(server)
    report(store, assignment, 1, 3)
    watching = watch(server, assignment.job_id)
    first = next(watching)
    store.finish(assignment, State.SUCCEEDED, reason="done")
    events = list(watching)

    assert ("snapshot", 6) == (first.WhichOneof("payload"), first.snapshot.sequence)
    assert list(range(1, 3 + JOB_EVENTS + 1)) == history(events)
    assert State.SUCCEEDED.value == events[-1].state.to_state


def test_a_watch_resumes_after_the_sequence_it_is_given(server, store, running):
    assignment = running(server)
    report(store, assignment, 1, 3)
    store.finish(assignment, State.FAILED, reason="broke")

    assert [5, 6, 7] == history(watch(server, assignment.job_id, after=4))
    assert [] == history(watch(server, assignment.job_id, after=7))


def test_a_watch_of_the_future_is_out_of_range(server, running):
    assignment = running(server)

    with pytest.raises(grpc.RpcError) as caught:
        list(watch(server, assignment.job_id, after=99))

    assert grpc.StatusCode.OUT_OF_RANGE == caught.value.code()
    assert "OUT_OF_RANGE" == reason_of(caught.value)[0]


def test_a_watch_of_an_unknown_job_is_not_found(server):
    with pytest.raises(grpc.RpcError) as caught:
        list(watch(server, "job-none"))

    assert grpc.StatusCode.NOT_FOUND == caught.value.code()


def test_a_silent_watch_gets_signs_of_life(server, running):
    assignment = running(server)
    kinds = []
    for event in watch(server, assignment.job_id):
        kinds.append(event.WhichOneof("payload"))
        if kinds[-2:] == ["keepalive", "keepalive"]:
            break

    # One may have come early, where the others took their time.
    assert ["snapshot", "state", "state", "state"] == [kind for kind in kinds if kind != "keepalive"]
    assert ["keepalive", "keepalive"] == kinds[-2:]


def test_a_new_event_arrives_without_waiting_for_the_next_look(server, store, running):
    assignment = running(server)
    watching = watch(server, assignment.job_id)
    while next(watching).WhichOneof("payload") != "keepalive":
        pass
    delays = []
    for step in range(1, 11):
        written = time.monotonic()
        report(store, assignment, step, step)
        while next(watching).WhichOneof("payload") != "metrics":
            pass
        delays.append(time.monotonic() - written)

    assert sorted(delays)[5] < 0.25


def test_fifty_watchers_each_get_every_event_once_while_many_are_written(server, store, running):
    assignment = running(server)
    stub = server.jobs
    everyone_in = threading.Barrier(51)

    def follow(number: int) -> list[int]:
        # They come at different moments of the history.
        everyone_in.wait(30)
        time.sleep(number * 0.02)
        request = api.WatchJobRequest(job_id=assignment.job_id)
        return history(message.event for message in stub.WatchJob(request, timeout=60))

    with ThreadPoolExecutor(50) as pool:
        following = [pool.submit(follow, number) for number in range(50)]
        everyone_in.wait(30)
        report(store, assignment, 1, 400)
        store.finish(assignment, State.SUCCEEDED, reason="done")
        seen = [future.result(60) for future in following]

    assert [list(range(1, 400 + JOB_EVENTS + 1))] * 50 == seen


def test_a_slow_reader_misses_nothing_and_slows_nobody(server, store, running):
    assignment = running(server)
    slow, quick = watch(server, assignment.job_id), watch(server, assignment.job_id)
    taken = [next(slow) for _ in range(4)]
    with ThreadPoolExecutor(1) as pool:
        quickly = pool.submit(lambda: history(quick))
        text = "x" * 100_000
        for batch in range(1, 61):  # 6 MB: far above what is queued for one watcher, and less than is kept of a log
            store.append(assignment, batch, [LogBatch(lines=(LogLine(text=text),))])
        store.finish(assignment, State.SUCCEEDED, reason="done")
        everything = list(range(1, 60 + JOB_EVENTS + 1))

        assert everything == quickly.result(30)
    assert everything == history([*taken, *slow])


def test_a_watcher_that_leaves_is_forgotten(server, running, eventually):
    assignment = running(server)
    call = server.jobs.WatchJob(api.WatchJobRequest(job_id=assignment.job_id), timeout=20)
    next(call)
    call.cancel()

    def ended() -> bool:
        lines = [line for line in server.log().splitlines() if f"job={assignment.job_id} CANCELLED" in line]
        return any("JobService/WatchJob" in line for line in lines)

    eventually(ended)


def test_sigterm_ends_watches_with_unavailable_and_the_server_with_0(new_server, running):
    server = new_server()
    assignment = running(server)
    watching = watch(server, assignment.job_id)
    next(watching)
    stub: Any = health_pb2_grpc.HealthStub(server.channel())
    health = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
    statuses = [next(health).status]
    server.terminate()
    statuses.append(next(health).status)
    with pytest.raises(grpc.RpcError) as caught:
        list(watching)
    health.cancel()

    assert [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING] == statuses
    assert grpc.StatusCode.UNAVAILABLE == caught.value.code()
    assert "watch again" in str(caught.value.details())
    assert 0 == server.wait()


def test_after_sigkill_of_the_server_a_resumed_watch_has_every_event_once(new_server, store, running):
    server = new_server()
    assignment = running(server)
    report(store, assignment, 1, 50)
    seen: list[int] = []
    watching = watch(server, assignment.job_id)
    while seen[-1:] != [30]:
        seen += history([next(watching)])
    server.kill()
    with pytest.raises(grpc.RpcError) as caught:
        seen.extend(event.sequence for event in watching)
    report(store, assignment, 51, 80)
    server.start()
    resumed = watch(server, assignment.job_id, after=seen[-1])
    next(resumed)
    report(store, assignment, 81, 100)
    store.finish(assignment, State.SUCCEEDED, reason="done")
    seen += history(resumed)

    assert grpc.StatusCode.UNAVAILABLE == caught.value.code()
    assert list(range(1, 100 + JOB_EVENTS + 1)) == seen


def test_a_watch_survives_a_redis_that_goes_and_comes_back(server, store, running, redis_server):
    assignment = running(server)
    report(store, assignment, 1, 5)
    watching = watch(server, assignment.job_id)
    seen: list[event_pb2.JobEvent] = []
    while len(history(seen)) < 5 + JOB_EVENTS - 1:
        seen.append(next(watching))
    redis_server.kill()
    silence = [next(watching).WhichOneof("payload") for _ in range(3)]
    redis_server.start()
    report(store, assignment, 6, 10)
    store.finish(assignment, State.SUCCEEDED, reason="done")

    assert ["keepalive"] * 3 == silence
    assert list(range(1, 10 + JOB_EVENTS + 1)) == history([*seen, *watching])


def test_without_redis_a_call_is_unavailable_and_says_when_to_try_again(server, redis_server):
    redis_server.kill()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            server.jobs.GetJob(api.GetJobRequest(job_id="job-x"), timeout=30)
    finally:
        redis_server.start()
    error: Any = caught.value
    details = [detail.type_url.rpartition(".")[2] for detail in rpc_status.from_call(error).details]

    assert grpc.StatusCode.UNAVAILABLE == caught.value.code()
    assert ["ErrorInfo", "RetryInfo"] == details
