"""A spec of the next release, at this one: what it does not know it keeps."""

from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from podium.api.v1 import job_service_pb2 as api
from podium.api.v1 import spec_pb2
from podium.jobs.events import MetricBatch
from podium.jobs.states import State
from podium.jobs.store.redis import RedisStore

#: Field 15000, a text. No message of the contract has it.
_TEXT = b"of the next release"
_FUTURE = b"\xc2\xa9\x07" + bytes([len(_TEXT)]) + _TEXT


def parts(spec: spec_pb2.JobSpec) -> dict[str, Message]:
    """Messages at every depth: the spec, what lies in it, and members of its oneofs, a sorter among them."""
    return {"spec": spec, "weights": spec.weights, "dataset": spec.image_folder, "sorter": spec.odd_even}


@pytest.fixture
def future_job(server, request_for) -> str:
    """A job whose spec has fields that this release does not know, at every depth."""
    request = request_for()
    for part in parts(request.spec).values():
        part.MergeFromString(_FUTURE)
    job_id: str = server.jobs.CreateJob(request, timeout=20).job.id
    return job_id


@pytest.fixture
def kept(server, future_job) -> Callable[[], list[str]]:
    """Where GetJob still tells of them."""

    def look() -> list[str]:
        spec = server.jobs.GetJob(api.GetJobRequest(job_id=future_job), timeout=20).job.spec
        found = []
        for name, part in parts(spec).items():
            own = type(part)()
            own.CopyFrom(part)
            for field, _ in own.ListFields():
                own.ClearField(field.name)
            if own.SerializeToString() == _FUTURE:
                found.append(name)
        return found

    return look


def test_fields_of_the_next_release_outlive_all_that_becomes_of_a_job(server, store: RedisStore, future_job, kept):
    whole = ["spec", "weights", "dataset", "sorter"]
    assert whole == kept()

    server.jobs.UpdateJob(api.UpdateJobRequest(job_id=future_job, labels={"a": "b"}), timeout=20)
    assert whole == kept()

    first = store.dispatch(future_job, "played", 0)
    store.begin(first)
    store.append(first, 1, [MetricBatch.at(1, {"loss": 1.0})])
    assert whole == kept()

    store.recover(first, "the machine was lost")
    second = store.dispatch(future_job, "played", 0)
    store.begin(second)
    store.finish(second, State.SUCCEEDED, reason="done")
    assert whole == kept()


def test_more_of_them_than_any_release_could_mean_is_refused(server, request_for, refused):
    request = request_for()
    request.spec.image_folder.MergeFromString(_FUTURE * 4000)

    status = refused(server.jobs.CreateJob, request)

    assert "INVALID_SPEC" == status.reason
    assert "does not know" in status.fields["spec"]
