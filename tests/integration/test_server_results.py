"""What becomes of a job: its metrics, and the bytes of its checkpoints, over real gRPC."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from podium.api.v1 import checkpoint_service_pb2 as checkpoint_api
from podium.api.v1 import metric_service_pb2 as metric_api
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import MetricBatch


def test_metrics_hold_each_step_once_and_the_later_attempt_wins(server, store, running):
    first = running()
    store.append(first, 1, [MetricBatch.at(step, {"loss": 1.0}) for step in range(1, 5)])
    store.recover(first, "lost")
    second = store.dispatch(first.job_id, "played", 1)
    store.begin(second)
    store.append(second, 1, [MetricBatch.at(step, {"loss": 2.0, "val/top1": 0.5}) for step in range(3, 7)])

    series = server.metrics.QueryMetrics(metric_api.QueryMetricsRequest(job_id=first.job_id), timeout=20).series

    assert ["loss", "val/top1"] == [item.name for item in series]
    assert [1, 2, 3, 4, 5, 6] == list(series[0].steps)
    assert [1.0, 1.0, 2.0, 2.0, 2.0, 2.0] == list(series[0].values)


def test_metrics_can_be_narrowed_and_thinned_and_keep_their_ends_and_a_peak(server, store, running):
    assignment = running()
    loss = [1000 if step == 40 else step for step in range(100)]
    store.append(assignment, 1, [MetricBatch.at(step, {"loss": loss[step], "other": 0.0}) for step in range(100)])
    request = metric_api.QueryMetricsRequest(
        job_id=assignment.job_id, names=["loss"], first_step=10, last_step=90, max_points=5
    )

    (series,) = server.metrics.QueryMetrics(request, timeout=20).series

    assert [10, 11, 40, 90] == list(series.steps)


def test_a_range_of_steps_that_ends_before_it_begins_is_refused(server, refused):
    request = metric_api.QueryMetricsRequest(job_id="job-x", first_step=5, last_step=4)

    assert ["last_step"] == list(refused(server.metrics.QueryMetrics, request).fields)


@pytest.fixture
def checkpoint(running, store, artifacts_root: Path) -> Iterator[SimpleNamespace]:
    """A committed checkpoint of 600 000 bytes."""
    assignment, data = running(), os.urandom(600_000)
    with ArtifactStore(str(artifacts_root)).stage(assignment.job_id, 1) as staging:
        (staging.directory / "model.safetensors").write_bytes(data)
        committed = staging.commit(fence=assignment.fence, step=7, spec_digest="x", metrics={"val/top1": 0.5})
    store.commit_checkpoint(assignment, committed)
    path = next(artifacts_root.rglob(f"{committed.id}/model.safetensors"))
    return SimpleNamespace(id=committed.id, job_id=assignment.job_id, data=data, path=path)


def read_request(checkpoint, **changes) -> checkpoint_api.ReadCheckpointRequest:
    return checkpoint_api.ReadCheckpointRequest(
        **{"checkpoint_id": checkpoint.id, "file": "model.safetensors", **changes}
    )


def test_a_checkpoint_arrives_whole_and_its_first_message_names_the_file(server, checkpoint):
    messages = list(server.checkpoints.ReadCheckpoint(read_request(checkpoint), timeout=20))

    assert checkpoint.data == b"".join(message.data for message in messages)
    assert hashlib.sha256(checkpoint.data).hexdigest() == messages[0].file.sha256
    assert 600_000 == messages[0].file.size
    assert [True] + [False] * (len(messages) - 1) == [message.HasField("file") for message in messages]


@pytest.mark.parametrize("offset", [1, 300_000, 600_000])
def test_a_checkpoint_can_be_read_from_an_offset(server, checkpoint, offset):
    messages = list(server.checkpoints.ReadCheckpoint(read_request(checkpoint, offset=offset), timeout=20))

    assert checkpoint.data[offset:] == b"".join(message.data for message in messages)
    assert 600_000 == messages[0].file.size


def test_a_checkpoint_whose_bytes_changed_ends_with_data_loss(server, checkpoint, refused):
    checkpoint.path.write_bytes(b"\0" + checkpoint.data[1:])

    status = refused(server.checkpoints.ReadCheckpoint, read_request(checkpoint))

    assert (grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH") == (status.code, status.reason)


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"offset": 600_001}, grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE"),
        ({"file": "../MANIFEST.json"}, grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND"),
        ({"checkpoint_id": "ckpt-none"}, grpc.StatusCode.NOT_FOUND, "CHECKPOINT_NOT_FOUND"),
    ],
)
def test_what_a_checkpoint_does_not_have_cannot_be_read(server, checkpoint, refused, changes, code, reason):
    status = refused(server.checkpoints.ReadCheckpoint, read_request(checkpoint, **changes))

    assert (code, reason) == (status.code, status.reason)


def test_a_job_can_start_from_a_checkpoint_of_the_same_backbone_only(server, checkpoint, request_for, refused):
    weights = {"checkpoint": checkpoint.id}
    same = request_for(weights=weights, backbone="torchvision/resnet18", validate_only=True)

    assert server.jobs.CreateJob(same, timeout=20).job.spec.weights.checkpoint == checkpoint.id
    status = refused(server.jobs.CreateJob, request_for(weights=weights, backbone="resnet50"))
    assert "resnet18" in status.fields["spec.weights.checkpoint"]


def test_checkpoints_are_listed_with_their_files(server, checkpoint):
    request = checkpoint_api.ListCheckpointsRequest(job_id=checkpoint.job_id)

    (listed,) = server.checkpoints.ListCheckpoints(request, timeout=20).checkpoints

    assert (checkpoint.id, 7, 0.5) == (listed.id, listed.step, listed.metrics["val/top1"])
