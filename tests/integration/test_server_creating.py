"""What CreateJob accepts and refuses, over real gRPC, in front of a real Redis."""

import shutil
import uuid
from typing import Any

import grpc
import pytest

from podium.api.v1 import job_pb2
from podium.api.v1 import job_service_pb2 as job_api


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


def test_a_job_with_thousands_of_declared_classes_is_created_like_any_other(server, request_for, data_root):
    shard = data_root / "train-0.tar"
    shard.touch()
    names = [f"class {number}" for number in range(6_000)]
    wanted = {"image_folder": None, "web_dataset": {"train": [str(shard)]}, "classes": names}
    request = request_for(request_id=str(uuid.uuid4()), **wanted)
    first, second = (server.jobs.CreateJob(request, timeout=20).job for _ in range(2))

    assert first.id == second.id
    assert names == list(server.jobs.GetJob(job_api.GetJobRequest(job_id=first.id), timeout=20).job.classes)


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
