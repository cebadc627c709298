"""DeleteJob and DeleteCheckpoint at a real server."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from podium.api.v1 import checkpoint_service_pb2 as checkpoint_api
from podium.api.v1 import job_service_pb2 as job_api
from podium.api.v1 import log_service_pb2 as log_api
from podium.api.v1 import metric_service_pb2 as metric_api
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import MetricBatch
from podium.jobs.job import Checkpoint
from podium.jobs.states import State
from podium.jobs.store import Assignment
from podium.jobs.store.redis import RedisStore


def commit(artifacts: ArtifactStore, store: RedisStore, mine: Assignment, step: int) -> Checkpoint:
    with artifacts.stage(mine.job_id, mine.attempt) as staging:
        (staging.directory / "model").write_bytes(b"weights")
        checkpoint = staging.commit(fence=mine.fence, step=step, spec_digest="d")
    store.commit_checkpoint(mine, checkpoint)
    return checkpoint


@pytest.fixture
def artifacts(artifacts_root: Path) -> ArtifactStore:
    return ArtifactStore(str(artifacts_root))


@pytest.fixture
def ended(store, running, artifacts) -> tuple[str, list[Checkpoint]]:
    """A job that has succeeded, and its two checkpoints."""
    mine = running()
    store.append(mine, 1, [MetricBatch.at(1, {"loss": 1.0})])
    checkpoints = [commit(artifacts, store, mine, step) for step in (1, 2)]
    store.finish(mine, State.SUCCEEDED, reason="done")
    return mine.job_id, checkpoints


def delete(server: Any, job_id: str) -> None:
    server.jobs.DeleteJob(job_api.DeleteJobRequest(job_id=job_id), timeout=20)


def test_a_deleted_job_is_not_found_and_its_files_go(server, store, ended, artifacts, refused, eventually) -> None:
    job_id, (checkpoint, _) = ended
    folder = artifacts.root / "jobs" / job_id
    assert folder.is_dir()
    delete(server, job_id)

    for method, request in (
        (server.jobs.GetJob, job_api.GetJobRequest(job_id=job_id)),
        (server.jobs.WatchJob, job_api.WatchJobRequest(job_id=job_id)),
        (server.jobs.DeleteJob, job_api.DeleteJobRequest(job_id=job_id)),
        (server.metrics.QueryMetrics, metric_api.QueryMetricsRequest(job_id=job_id)),
        (server.logs.ReadLogs, log_api.ReadLogsRequest(job_id=job_id)),
        (server.checkpoints.ListCheckpoints, checkpoint_api.ListCheckpointsRequest(job_id=job_id)),
        (
            server.checkpoints.ReadCheckpoint,
            checkpoint_api.ReadCheckpointRequest(checkpoint_id=checkpoint.id, file="model"),
        ),
    ):
        assert grpc.StatusCode.NOT_FOUND is refused(method, request).code, method
    assert job_id not in {job.id for job in server.jobs.ListJobs(job_api.ListJobsRequest(), timeout=20).jobs}
    eventually(lambda: not folder.exists())
    assert [job_id] == [deletion.job_id for deletion in store.deletions()]


def test_files_go_though_the_server_that_deleted_the_job_is_killed(
    new_server, store, request_for, artifacts, eventually
) -> None:
    server = new_server()
    mine = store.dispatch(server.jobs.CreateJob(request_for(), timeout=20).job.id, "played", 0)
    store.begin(mine)
    commit(artifacts, store, mine, 1)
    store.finish(mine, State.SUCCEEDED, reason="done")
    delete(server, mine.job_id)
    server.kill()
    folder = artifacts.root / "jobs" / mine.job_id
    folder.mkdir(exist_ok=True)  # as if it had not come to it
    server.start()

    eventually(lambda: not folder.exists(), 30)


def test_a_job_that_starts_from_a_checkpoint_protects_it(server, store, ended, request_for, refused) -> None:
    job_id, (checkpoint, other) = ended
    user = server.jobs.CreateJob(request_for(weights={"checkpoint": checkpoint.id}), timeout=20).job.id
    for method, request in (
        (server.jobs.DeleteJob, job_api.DeleteJobRequest(job_id=job_id)),
        (
            server.checkpoints.DeleteCheckpoint,
            checkpoint_api.DeleteCheckpointRequest(checkpoint_id=checkpoint.id),
        ),
    ):
        status = refused(method, request)
        assert (grpc.StatusCode.FAILED_PRECONDITION, "IN_USE") == (status.code, status.reason)
        assert (user, checkpoint.id) == (status.metadata["job_id"], status.metadata["checkpoint_id"])
        assert user in status.sentence
    server.checkpoints.DeleteCheckpoint(checkpoint_api.DeleteCheckpointRequest(checkpoint_id=other.id), timeout=20)
    server.jobs.CancelJob(job_api.CancelJobRequest(job_id=user), timeout=20)
    delete(server, job_id)


def test_a_job_that_has_not_ended_is_not_deleted(server, running, refused) -> None:
    status = refused(server.jobs.DeleteJob, job_api.DeleteJobRequest(job_id=running().job_id))
    assert (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE") == (status.code, status.reason)
    assert "RUNNING; cancel it" in status.sentence


def test_a_deleted_checkpoint_is_gone_and_the_others_stay(server, ended, artifacts, refused, eventually) -> None:
    job_id, (first, second) = ended
    request = checkpoint_api.DeleteCheckpointRequest(checkpoint_id=first.id)
    server.checkpoints.DeleteCheckpoint(request, timeout=20)

    status = refused(server.checkpoints.DeleteCheckpoint, request)
    assert (grpc.StatusCode.NOT_FOUND, "CHECKPOINT_NOT_FOUND") == (status.code, status.reason)
    listed = server.checkpoints.ListCheckpoints(checkpoint_api.ListCheckpointsRequest(job_id=job_id), timeout=20)
    assert [second.id] == [checkpoint.id for checkpoint in listed.checkpoints]
    eventually(lambda: [second.id] == [manifest.id for manifest in artifacts.manifests(job_id)])


def test_a_request_id_whose_job_was_deleted_makes_no_second_one(server, request_for, refused) -> None:
    request = request_for(request_id="11111111-2222-3333-4444-555555555555")
    job_id = server.jobs.CreateJob(request, timeout=20).job.id
    server.jobs.CancelJob(job_api.CancelJobRequest(job_id=job_id), timeout=20)
    delete(server, job_id)

    status = refused(server.jobs.CreateJob, request)
    assert (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND") == (status.code, status.reason)
    assert "make a new request_id" in status.sentence
    assert [] == list(server.jobs.ListJobs(job_api.ListJobsRequest(), timeout=20).jobs)


def test_a_job_whose_checkpoint_was_deleted_is_refused_by_its_field(server, ended, request_for, refused) -> None:
    job_id, (checkpoint, _) = ended
    delete(server, job_id)
    status = refused(server.jobs.CreateJob, request_for(weights={"checkpoint": checkpoint.id}))

    assert grpc.StatusCode.NOT_FOUND is status.code
    assert "spec.weights.checkpoint" in status.fields
