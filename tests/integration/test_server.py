"""The server's unary rpcs and its bytes, over real gRPC, in front of a real Redis.

Long, because all of it shares one server, its fixtures and the table of bad specs.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from podium.api.v1 import checkpoint_service_pb2 as checkpoint_api
from podium.api.v1 import job_pb2
from podium.api.v1 import job_service_pb2 as job_api
from podium.api.v1 import metric_service_pb2 as metric_api
from podium.api.v1 import server_service_pb2 as server_api
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import MetricBatch


def test_a_created_job_is_queued_with_every_default_written_out(server, request_for):
    job = server.jobs.CreateJob(request_for(), timeout=20).job

    assert job_pb2.Job.STATE_QUEUED == job.state
    assert 1 == job.queue.position
    assert "no worker in pool default" in job.queue.wait_reason
    assert [f"class{number:02}" for number in range(12)] == list(job.classes)
    assert (12, 20, 128, 0.001) == (job.spec.m, job.spec.epochs, job.spec.batch_size, job.spec.adamw.learning_rate)
    assert list(range(1, 11)) == list(job.spec.evaluation.top_k)
    assert (224, 0.875) == (job.spec.preprocessing.image_size, job.spec.preprocessing.crop_fraction)
    assert job == server.jobs.GetJob(job_api.GetJobRequest(job_id=job.id), timeout=20).job


def test_the_same_request_id_gives_the_same_job_and_creates_nothing(server, request_for):
    request = request_for(request_id=str(uuid.uuid4()))
    first, second = (server.jobs.CreateJob(request, timeout=20).job for _ in range(2))

    assert first.id == second.id
    assert 1 == len(server.jobs.ListJobs(job_api.ListJobsRequest(), timeout=20).jobs)


def test_the_same_request_id_gives_the_same_job_though_the_data_has_changed(server, request_for, data_root, tmp_path):
    grown = data_root / "grown"
    shutil.copytree(data_root / "train", grown)
    request = request_for(request_id=str(uuid.uuid4()), image_folder={"train": str(grown)})
    first = server.jobs.CreateJob(request, timeout=20).job
    shutil.copytree(grown / "class00", grown / "class99")
    second = server.jobs.CreateJob(request, timeout=20).job
    shutil.rmtree(grown)
    third = server.jobs.CreateJob(request, timeout=20).job

    assert [first.id] * 2 == [second.id, third.id]


def test_a_request_id_cannot_be_used_for_another_spec(server, request_for, refused):
    request_id = str(uuid.uuid4())
    server.jobs.CreateJob(request_for(request_id=request_id), timeout=20)

    status = refused(server.jobs.CreateJob, request_for(request_id=request_id, epochs=3))

    assert (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") == (status.code, status.reason)


def test_validate_only_answers_with_the_resolved_spec_and_makes_no_job(server, request_for):
    job = server.jobs.CreateJob(request_for(validate_only=True), timeout=20).job

    assert ("", 12) == (job.id, job.spec.m)
    assert not server.jobs.ListJobs(job_api.ListJobsRequest(), timeout=20).jobs


BAD_SPECS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown backbone": ({"backbone": "resnett18"}, "spec.backbone", "resnet18"),
    "weights that do not sum to 1": ({"k": {"1": 0.5, "5": 0.4}}, "spec.k", "0.9"),
    "k above the number of classes": ({"k": {"1": 0.5, "40": 0.5}}, "spec.k", "12"),
    "weights beyond all numbers": ({"k": {"1": 1e308, "5": 1e308}}, "spec.k", "sum"),
    "a monitor of thousands of digits": (
        {"evaluation": {"monitor": "top" + "1" * 5000}},
        "spec.evaluation.monitor",
        "",
    ),
    "m not above the largest k": ({"m": 5}, "spec.m", "largest k"),
    "m above the number of classes": ({"m": 13}, "spec.m", "12"),
    "negative learning rate": ({"adamw": {"learning_rate": -1}}, "spec.adamw.learning_rate", "greater than 0"),
    "NaN temperature": (
        {"odd_even": None, "neural_sort": {"temperature": "NaN"}},
        "spec.neural_sort.temperature",
        "",
    ),
    "no sorter": ({"odd_even": None}, "spec.sorter", "required"),
    "absurd batch size": ({"batch_size": 10_000_000}, "spec.batch_size", "65536"),
    "path outside the allowed roots": ({"image_folder": {"train": "/etc"}}, "spec.image_folder.train", "allowed"),
    "weights outside the allowed roots": ({"weights": {"file": "/etc/passwd"}}, "spec.weights.file", "allowed"),
    "relative path": ({"image_folder": {"train": "train"}}, "spec.image_folder.train", "absolute"),
    "a GPU without an image": ({"batch_size": 1, "resources": {"gpus": 2}}, "spec.batch_size", "write 2 or more"),
    "too many machines": ({"resources": {"nodes": 65}}, "spec.resources.nodes", "64"),
    "a stall that never counts": ({"stall_timeout_seconds": 0}, "spec.stall_timeout_seconds", "1"),
    "URI that is not allowed": ({"weights": {"file": "s3://bucket/w.pth"}}, "spec.weights.file", "PODIUM_URI_PREFIXES"),
    "unknown dataset": (
        {"image_folder": None, "torchvision_dataset": {"name": "CIFAR1000", "root": "/data"}},
        "spec.torchvision_dataset.name",
        "did you mean CIFAR100",
    ),
    "softmax with another k than 1": ({"odd_even": None, "softmax": {}}, "spec.k", "softmax"),
    "head without weights": ({"weights": None}, "spec.weights", "full"),
    "unknown tag": ({"weights": {"tag": "IMAGENET22K"}}, "spec.weights.tag", "IMAGENET1K_V1"),
    "monitor that is not evaluated": (
        {"evaluation": {"top_k": [1, 5], "monitor": "top3"}},
        "spec.evaluation.monitor",
        "top_k",
    ),
    "top_k above the number of classes": ({"evaluation": {"top_k": [1, 50]}}, "spec.evaluation.top_k[1]", "12"),
    "two means": ({"preprocessing": {"mean": [0.5, 0.5]}}, "spec.preprocessing.mean", "three"),
    "upper-case label": ({"labels": {"Team": "x"}}, 'spec.labels["Team"]', ""),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_bad_spec_is_refused_by_the_name_of_its_field(case, server, request_for, refused):
    changes, field, part = BAD_SPECS[case]

    status = refused(server.jobs.CreateJob, request_for(**changes))

    assert (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", "podium") == (status.code, status.reason, status.domain)
    assert part in status.fields[field]
    assert not server.jobs.ListJobs(job_api.ListJobsRequest(), timeout=20).jobs


def test_everything_wrong_with_a_spec_is_told_at_once(server, request_for, refused, data_root):
    train, missing = str(data_root / "train"), str(data_root / "nowhere")
    bad = request_for(
        request_id="no uuid",
        backbone="resnett18",
        k={"1": 0.5, "5": 0.4},
        batch_size=0,
        adamw={"learning_rate": -1},
        image_folder={"train": train, "test": missing},
    )

    status = refused(server.jobs.CreateJob, bad)

    assert grpc.StatusCode.INVALID_ARGUMENT == status.code
    assert {
        "request_id",
        "spec.backbone",
        "spec.k",
        "spec.batch_size",
        "spec.adamw.learning_rate",
        "spec.image_folder.test",
    } == set(status.fields)


def test_a_hundred_violations_still_fit_into_a_status(server, request_for, refused):
    labels = {f"LABEL{number}" + "X" * 200: "x" for number in range(60)}

    status = refused(server.jobs.CreateJob, request_for(labels=labels, evaluation={"top_k": list(range(20, 60))}))

    assert grpc.StatusCode.INVALID_ARGUMENT == status.code
    assert "more; mend these first" in list(status.fields.values())[-1]


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"image_folder": {"train": "nowhere"}}, "spec.image_folder.train", "PATH_NOT_FOUND"),
        ({"weights": {"file": "nothing.pth"}}, "spec.weights.file", "PATH_NOT_FOUND"),
        ({"weights": {"checkpoint": "ckpt-none"}}, "spec.weights.checkpoint", "CHECKPOINT_NOT_FOUND"),
    ],
)
def test_what_does_not_exist_is_not_found_by_the_name_of_its_field(
    changes, field, reason, server, request_for, refused, data_root
):
    inside = {
        name: {key: value if key == "checkpoint" else str(data_root / value) for key, value in parts.items()}
        for name, parts in changes.items()
    }

    status = refused(server.jobs.CreateJob, request_for(**inside))

    assert (grpc.StatusCode.NOT_FOUND, reason) == (status.code, status.reason)
    assert [field] == list(status.fields)


def test_dots_do_not_lead_out_of_the_allowed_roots(server, request_for, refused, data_root):
    status = refused(server.jobs.CreateJob, request_for(image_folder={"train": f"{data_root}/train/../../nowhere"}))

    assert "outside the allowed roots" in status.fields["spec.image_folder.train"]


def test_a_link_out_of_the_allowed_roots_is_outside(server, request_for, refused, data_root, tmp_path):
    (data_root / "link").symlink_to(tmp_path)
    try:
        status = refused(server.jobs.CreateJob, request_for(image_folder={"train": str(data_root / "link")}))
    finally:
        (data_root / "link").unlink()

    assert "outside the allowed roots" in status.fields["spec.image_folder.train"]


def test_a_test_split_with_a_class_that_train_lacks_is_refused(server, request_for, refused, data_root, tmp_path):
    extra = data_root / "extra" / "unheard-of"
    extra.mkdir(parents=True, exist_ok=True)
    (extra / "1.png").write_bytes(b"x")
    folders = {"train": str(data_root / "train"), "test": str(extra.parent)}

    status = refused(server.jobs.CreateJob, request_for(image_folder=folders))

    assert "unheard-of" in status.fields["spec.image_folder.test"]


def test_pages_hold_every_job_once_newest_first(server, request_for):
    jobs = server.jobs
    made = [jobs.CreateJob(request_for(), timeout=20).job.id for _ in range(5)]
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page = jobs.ListJobs(job_api.ListJobsRequest(page_size=2, page_token=token), timeout=20)
        seen += [job.id for job in page.jobs]
        token, pages = page.next_page_token, pages + 1

    assert made[::-1] == seen
    assert 3 == pages


def test_a_page_token_is_good_for_its_own_list_only(server, request_for, refused):
    for _ in range(2):
        server.jobs.CreateJob(request_for(), timeout=20)
    token = server.jobs.ListJobs(job_api.ListJobsRequest(page_size=1), timeout=20).next_page_token
    others: list[dict[str, Any]] = [
        {"states": [job_pb2.Job.STATE_RUNNING]},
        {"filter": "attempt = 0"},
        {"order_by": "create_time"},
        {"project": "other"},
    ]

    asked = [job_api.ListJobsRequest(page_token=token, **other) for other in others]
    for request in (*asked, job_api.ListJobsRequest(page_token="made up")):
        status = refused(server.jobs.ListJobs, request)
        assert (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"]) == (status.code, list(status.fields))


def test_a_list_can_be_narrowed_to_states(server, request_for):
    jobs = server.jobs
    kept, ended = (jobs.CreateJob(request_for(), timeout=20).job.id for _ in range(2))
    jobs.CancelJob(job_api.CancelJobRequest(job_id=ended), timeout=20)

    page = jobs.ListJobs(job_api.ListJobsRequest(states=[job_pb2.Job.STATE_QUEUED]), timeout=20)

    assert [kept] == [job.id for job in page.jobs]


def test_a_list_is_narrowed_by_a_filter_over_all_its_pages(server, request_for):
    made = {
        team: [server.jobs.CreateJob(request_for(labels={"team": team}), timeout=20).job.id for _ in range(3)]
        for team in ("vision", "audio")
    }
    server.jobs.CancelJob(job_api.CancelJobRequest(job_id=made["vision"][1]), timeout=20)
    only = 'labels.team = "vision" AND terminal = false AND create_time > 2020-01-01'
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        request = job_api.ListJobsRequest(filter=only, order_by="create_time", page_size=1, page_token=token)
        page = server.jobs.ListJobs(request, timeout=20)
        seen += [(job.id, job.queue.position) for job in page.jobs]
        token, pages = page.next_page_token, pages + 1

    assert [(made["vision"][0], 1), (made["vision"][2], 2)] == seen
    assert [] == list(server.jobs.ListJobs(job_api.ListJobsRequest(filter="state = RUNNING state = PAUSED")).jobs)


@pytest.mark.parametrize(
    ("field", "request_", "said"),
    [
        ("filter", {"filter": "state = RUNING"}, "at character 1: state is one of QUEUED, "),
        ("filter", {"filter": "x" * 2001}, "2000"),
        ("order_by", {"order_by": "attempt"}, '"create_time desc" or "create_time"'),
        ("order_by", {"order_by": "create_time, id"}, '"create_time desc" or "create_time"'),
    ],
)
def test_a_filter_or_an_order_that_cannot_be_read_is_refused(server, refused, field, request_, said):
    status = refused(server.jobs.ListJobs, job_api.ListJobsRequest(**request_))

    assert (grpc.StatusCode.INVALID_ARGUMENT, [field]) == (status.code, list(status.fields))
    assert said in status.fields[field]


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


def test_the_callers_request_id_comes_back_and_is_in_the_log(server):
    _, call = server.catalogue.GetServerInfo.with_call(
        server_api.GetServerInfoRequest(), timeout=20, metadata=[("x-request-id", "my-own-id")]
    )

    assert {"x-request-id": "my-own-id"} == {item.key: item.value for item in call.trailing_metadata()}
    assert "request=my-own-id" in server.log()


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
