"""ListJobs: pages, filters and orders, over real gRPC, in front of a real Redis."""

from typing import Any

import grpc
import pytest

from podium.api.v1 import job_pb2
from podium.api.v1 import job_service_pb2 as job_api
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, Softmax
from podium.jobs.store import NewJob


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


def test_a_page_of_large_jobs_is_short_enough_for_whoever_asks(server, store):
    """gRPC's own limit for who sets none is 4 MiB."""
    classes = tuple(f"{number:05}".ljust(100, "x") for number in range(10_000))
    spec = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=Softmax())
    made = [store.create(NewJob(project="default", spec=spec, classes=classes))[0].id for _ in range(5)]
    seen: list[str] = []
    token = ""
    while not seen or token:
        page = server.jobs.ListJobs(job_api.ListJobsRequest(page_token=token), timeout=20)
        seen += [job.id for job in page.jobs]
        token = page.next_page_token

    assert made[::-1] == seen


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
