"""The server itself: catalogue, limits, request ids, health, over real gRPC, in front of a real Redis."""

import os
import subprocess
import sys
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from podium.api.v1 import checkpoint_service_pb2 as checkpoint_api
from podium.api.v1 import job_service_pb2 as job_api
from podium.api.v1 import server_service_pb2 as server_api


def test_the_catalogue_names_backbones_and_sorters(server):
    catalogue = server.catalogue
    backbones = catalogue.ListBackbones(server_api.ListBackbonesRequest(name_contains="ResNet18"), timeout=20).backbones
    sorters = catalogue.ListSorters(server_api.ListSortersRequest(), timeout=20).sorters

    assert {"timm/resnet18", "torchvision/resnet18"} <= {item.name for item in backbones}
    assert sorted(item.name for item in backbones) == [item.name for item in backbones]
    assert {"softmax", "odd_even", "subset"} <= {item.name for item in sorters}
    assert 1000 == catalogue.GetServerInfo(server_api.GetServerInfoRequest(), timeout=20).max_page_size


@pytest.mark.parametrize("name", ["job_id", "checkpoint"])
def test_an_unknown_job_is_not_found(server, refused, name):
    call = (
        (server.jobs.GetJob, job_api.GetJobRequest(job_id="job-none"))
        if name == "job_id"
        else (server.checkpoints.ListCheckpoints, checkpoint_api.ListCheckpointsRequest(job_id="job-none"))
    )

    status = refused(*call)

    assert (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND") == (status.code, status.reason)


def test_a_job_id_cannot_name_another_key_and_a_cursor_cannot_be_too_large(server, request_for, refused):
    job_id = server.jobs.CreateJob(request_for(), timeout=20).job.id

    strange = refused(server.jobs.GetJob, job_api.GetJobRequest(job_id=f"{job_id}:events"))
    far = refused(
        lambda request, timeout: list(server.jobs.WatchJob(request, timeout=timeout)),
        job_api.WatchJobRequest(job_id=job_id, after_sequence=2**64 - 1),
    )

    assert grpc.StatusCode.NOT_FOUND == strange.code
    assert grpc.StatusCode.OUT_OF_RANGE == far.code


def test_the_server_tells_its_limits(server, refused, data_root):
    info = server.catalogue.GetServerInfo(server_api.GetServerInfoRequest(), timeout=20)

    assert (False, [str(data_root)]) == (info.tokens_required, list(info.allowed_roots))
    assert min(info.max_calls_per_second, info.max_streams, info.max_page_size, info.events_kept) > 0
    too_many = dict.fromkeys(map(str, range(info.max_watched_jobs + 1)), 0)
    assert refused(server.jobs.WatchJobs, job_api.WatchJobsRequest(after_sequences=too_many)).fields
    too_many.popitem()
    assert grpc.StatusCode.NOT_FOUND == refused(
        server.jobs.WatchJobs, job_api.WatchJobsRequest(after_sequences=too_many)
    ).code  # fmt: skip


def test_a_server_of_other_limits_tells_those(new_server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    secret.chmod(0o600)
    server = new_server(
        PODIUM_URI_PREFIXES="s3://bucket/images",
        PODIUM_CALLS_PER_SECOND="7",
        PODIUM_STREAMS_PER_CALLER="3",
        PODIUM_ADMIN_TOKEN_FILE=str(secret),
    )
    bearer = [("authorization", f"Bearer {secret.read_text()}")]
    info = server.catalogue.GetServerInfo(server_api.GetServerInfoRequest(), timeout=20, metadata=bearer)

    assert (True, 7, 3) == (info.tokens_required, info.max_calls_per_second, info.max_streams)
    assert ["s3://bucket/images"] == list(info.allowed_uri_prefixes)


def test_what_a_spec_may_name_as_its_dataset_is_listed(server, request_for, data_root):
    listed = server.catalogue.ListDatasets(server_api.ListDatasetsRequest(), timeout=20)

    (found,) = [one for one in listed.datasets if one.path == str(data_root)]
    assert ("image_folder", ["train", "test"], 12) == (found.kind, list(found.splits), found.classes)
    named = {split: f"{found.path}/{split}" for split in found.splits}
    assert server.jobs.CreateJob(request_for(validate_only=True, image_folder=named), timeout=20).job.classes
    assert not server.catalogue.ListDatasets(server_api.ListDatasetsRequest(path_contains="\0"), timeout=20).datasets
    assert not listed.truncated


def test_the_callers_request_id_comes_back_and_is_in_the_log(server, eventually):
    _, call = server.catalogue.GetServerInfo.with_call(
        server_api.GetServerInfoRequest(), timeout=20, metadata=[("x-request-id", "my-own-id")]
    )

    assert {"x-request-id": "my-own-id"} == {item.key: item.value for item in call.trailing_metadata()}
    eventually(lambda: "request=my-own-id" in server.log())


def test_a_request_id_that_could_break_the_log_is_replaced(server, refused):
    metadata = [("x-request-id", "a b")]
    _, call = server.catalogue.GetServerInfo.with_call(server_api.GetServerInfoRequest(), timeout=20, metadata=metadata)

    assert "a b" not in [item.value for item in call.trailing_metadata()]


def test_health_and_reflection_answer(server):
    health: Any = health_pb2_grpc.HealthStub(server.channel())
    listed = reflection_pb2.ServerReflectionRequest(list_services="")
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel())
    answers = reflection.ServerReflectionInfo(iter([listed]), timeout=20)
    names = {item.name for item in next(answers).list_services_response.service}

    for service in ("", "podium.api.v1.JobService", "podium.api.v1.TokenService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert health_pb2.HealthCheckResponse.SERVING == answer.status
    assert {"podium.api.v1.JobService", "grpc.health.v1.Health"} <= names


def test_a_wrong_environment_is_told_in_a_sentence_and_exits_2(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
    found = subprocess.run(
        [sys.executable, "-m", "podium.server"], env=environment, capture_output=True, text=True, timeout=60
    )

    assert 2 == found.returncode
    assert "PODIUM_ARTIFACTS is not set" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_taken_port_is_told_in_a_sentence(server, artifacts_root):
    environment = {**os.environ, "PODIUM_ARTIFACTS": str(artifacts_root)}
    command = [sys.executable, "-m", "podium.server", "--listen", server.address]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    assert 1 == found.returncode
    assert "choose a free port with --listen" in found.stderr
    assert "Traceback" not in found.stderr
