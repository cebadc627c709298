"""Many calls at once at a real server: what they share, and what they must not."""

import random
from typing import Any

import grpc
import pytest

from podium.api.v1 import job_service_pb2 as job_api


@pytest.fixture
def job_ids(server, request_for) -> list[str]:
    return [server.jobs.CreateJob(request_for(), timeout=20).job.id for _ in range(3)]


def outcome(call: Any) -> str:
    """The job that was answered with, or why there is none."""
    try:
        job_id: str = call.result().job.id
    except grpc.FutureCancelledError:
        return "cancelled"
    except grpc.RpcError:
        return "too late" if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED else str(call.code())
    return job_id


def test_calls_that_wait_for_redis_share_one_connection(server, redis_client, job_ids):
    jobs = server.jobs
    redis_client.client_kill_filter(_type="normal", skipme=True)
    # So that all of them are under way at once.
    redis_client.client_pause(400)
    calls = [jobs.GetJob.future(job_api.GetJobRequest(job_id=job_ids[0]), timeout=20) for _ in range(40)]

    assert {job_ids[0]} == {call.result().job.id for call in calls}
    # Threads would have 32. There are those of the leader, of the watchers' reader and of whoever looks at the ledger.
    assert len(redis_client.client_list(_type="normal")) < 16


def test_callers_that_give_up_at_any_moment_leave_everybody_elses_answers_alone(server, redis_client, job_ids):
    dice, jobs, calls = random.Random(3), server.jobs, []
    for number in range(600):
        job_id = dice.choice(job_ids)
        hasty = dice.random() < 0.4
        timeout = dice.random() * 0.06 if hasty else 20
        calls.append((job_id, hasty, jobs.GetJob.future(job_api.GetJobRequest(job_id=job_id), timeout=timeout)))
        if dice.random() < 0.1:
            dice.choice(calls)[2].cancel()
        if number == 300:
            redis_client.client_kill_filter(_type="normal", skipme=True)

    answers = [(job_id, hasty, outcome(call)) for job_id, hasty, call in calls]
    assert all(answer in (job_id, "cancelled") for job_id, hasty, answer in answers if not hasty)
    assert all(answer in (job_id, "cancelled", "too late") for job_id, _, answer in answers)
    assert 0 < len([answer for _, _, answer in answers if answer == "too late"]) < 400
