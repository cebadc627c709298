"""Asking jobs to pause, go on, change and end, and machines to take no more: real gRPC in front of a real Redis."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from podium.api.v1 import job_pb2, node_pb2, spec_pb2
from podium.api.v1 import job_service_pb2 as job_api
from podium.api.v1 import node_service_pb2 as node_api
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.states import State
from podium.jobs.store import Drain, Wish

Job = job_pb2.Job


@pytest.fixture
def queued(server, request_for) -> Callable[..., str]:
    """Makes a job that waits for ever: its pool has no machine."""

    def make(**changes: object) -> str:
        job_id: str = server.jobs.CreateJob(request_for(**changes), timeout=20).job.id
        return job_id

    return make


def pause(server, job_id: str) -> Any:
    return server.jobs.PauseJob(job_api.PauseJobRequest(job_id=job_id, reason="lunch"), timeout=20).job


def resume(server, job_id: str) -> Any:
    return server.jobs.ResumeJob(job_api.ResumeJobRequest(job_id=job_id), timeout=20).job


def update(server, job_id: str, **changes: Any) -> Any:
    return server.jobs.UpdateJob(job_api.UpdateJobRequest(job_id=job_id, **changes), timeout=20).job


def test_a_queued_job_is_paused_at_once_and_comes_back_to_its_old_place(server, store, queued):
    first, second = queued(), queued()

    paused = [pause(server, first) for _ in range(2)]

    assert [(Job.STATE_PAUSED, "lunch")] * 2 == [(job.state, job.state_reason) for job in paused]
    assert [second] == list(store.pending("default"))
    resumed = [resume(server, first) for _ in range(2)]
    assert [(Job.STATE_QUEUED, 1)] * 2 == [(job.state, job.queue.position) for job in resumed]
    assert "no worker in pool default" in resumed[0].queue.wait_reason


def test_a_running_job_is_told_to_save_its_work_and_keeps_its_slot_until_it_has(server, store, running):
    assignment = running()

    paused = [pause(server, assignment.job_id) for _ in range(2)]

    assert paused[0] == paused[1]
    assert Job.STATE_PAUSING == paused[0].state
    assert paused[0].HasField("stop_time")
    assert Wish.PAUSE is store.renew(assignment)
    store.recover(assignment, "paused after step 7")
    assert Job.STATE_QUEUED == resume(server, assignment.job_id).state


def test_priority_and_labels_of_a_queued_job_change_and_the_rest_stays(server, store, queued):
    first = queued()
    second = queued(labels={"team": "a", "old": "x"}, priority="PRIORITY_LOW", epochs=3)
    changes = {"priority": spec_pb2.PRIORITY_HIGH, "labels": {"team": "b", "old": "", "new": "y"}}

    changed = [update(server, second, **changes) for _ in range(2)]

    assert changed[0] == changed[1]
    assert {"team": "b", "new": "y"} == dict(changed[0].spec.labels)
    assert (spec_pb2.PRIORITY_HIGH, 3, 1) == (
        changed[0].spec.priority,
        changed[0].spec.epochs,
        changed[0].queue.position,
    )
    assert [second, first] == list(store.pending("default"))
    assert spec_pb2.PRIORITY_HIGH == update(server, second, labels={"new": ""}).spec.priority


def test_an_update_whose_answer_was_lost_can_be_repeated_though_the_job_has_started(server, store, queued):
    job_id = queued()
    update(server, job_id, labels={"team": "a"})
    store.dispatch(job_id, "played", 0)

    assert Job.STATE_STARTING == update(server, job_id, labels={"team": "a"}).state


def test_an_update_that_names_neither_priority_nor_labels_is_told_what_to_give(server, queued, refused):
    for request in (
        job_api.UpdateJobRequest(job_id=queued()),
        job_api.UpdateJobRequest(job_id=queued(), priority=spec_pb2.PRIORITY_UNSPECIFIED),
    ):
        status = refused(server.jobs.UpdateJob, request)

        assert grpc.StatusCode.INVALID_ARGUMENT == status.code
        assert {"priority": "nothing is to be changed; set priority, labels or both"} == status.fields


def test_a_job_has_at_most_64_labels_counted_with_those_that_it_has(server, queued, refused):
    job_id = queued(labels={f"old{number}": "x" for number in range(40)})
    request = job_api.UpdateJobRequest(job_id=job_id, labels={f"new{number}": "x" for number in range(25)})

    status = refused(server.jobs.UpdateJob, request)

    assert grpc.StatusCode.INVALID_ARGUMENT == status.code
    assert "would be 65" in status.fields["labels"]
    assert 64 == len(update(server, job_id, labels={**request.labels, "old0": ""}).spec.labels)


def test_cancelling_twice_is_cancelling_once(server, queued):
    job_id = queued()
    first, second = (
        server.jobs.CancelJob(job_api.CancelJobRequest(job_id=job_id, reason="enough"), timeout=20).job
        for _ in range(2)
    )

    assert Job.STATE_CANCELLED == first.state
    assert first == second


def test_a_cancel_by_force_waits_for_nobody_and_fences_the_attempt_out(server, store, running):
    assignment = running()
    asked = job_api.CancelJobRequest(job_id=assignment.job_id)
    assert Job.STATE_CANCELLING == server.jobs.CancelJob(asked, timeout=20).job.state

    forced = [
        server.jobs.CancelJob(job_api.CancelJobRequest(job_id=assignment.job_id, force=True), timeout=20).job
        for _ in range(2)
    ]

    assert forced[0] == forced[1]
    assert Job.STATE_CANCELLED == forced[0].state
    assert "cancelled by force" == forced[0].attempts[0].outcome
    assert [] == list(store.holding())


def test_a_paused_job_can_be_cancelled(server, queued):
    job_id = queued()
    pause(server, job_id)

    assert Job.STATE_CANCELLED == server.jobs.CancelJob(job_api.CancelJobRequest(job_id=job_id), timeout=20).job.state


@pytest.mark.parametrize(
    ("method", "request_of", "before"),
    [
        ("PauseJob", job_api.PauseJobRequest, "succeeded"),
        ("PauseJob", job_api.PauseJobRequest, "cancelling"),
        ("ResumeJob", job_api.ResumeJobRequest, "succeeded"),
        ("ResumeJob", job_api.ResumeJobRequest, "cancelling"),
        ("ResumeJob", job_api.ResumeJobRequest, "pausing"),
        ("CancelJob", job_api.CancelJobRequest, "succeeded"),
        ("UpdateJob", job_api.UpdateJobRequest, "running"),
        ("UpdateJob", job_api.UpdateJobRequest, "pausing"),
    ],
)
def test_what_a_jobs_state_does_not_allow_is_refused_and_the_state_is_named(
    method, request_of, before, server, store, running, refused
):
    assignment = running()
    if before == "succeeded":
        store.finish(assignment, State.SUCCEEDED, reason="done")
    elif before == "cancelling":
        store.cancel(assignment.job_id, "enough")
    elif before == "pausing":
        pause(server, assignment.job_id)
    changes = {"labels": {"a": "b"}} if method == "UpdateJob" else {}

    status = refused(getattr(server.jobs, method), request_of(job_id=assignment.job_id, **changes))

    assert (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE") == (status.code, status.reason)
    assert assignment.job_id in status.sentence


@pytest.mark.parametrize(
    ("service", "method", "request_of", "field", "reason"),
    [
        ("jobs", "PauseJob", job_api.PauseJobRequest, "job_id", "JOB_NOT_FOUND"),
        ("jobs", "ResumeJob", job_api.ResumeJobRequest, "job_id", "JOB_NOT_FOUND"),
        ("jobs", "CancelJob", job_api.CancelJobRequest, "job_id", "JOB_NOT_FOUND"),
        (
            "jobs",
            "UpdateJob",
            lambda **of: job_api.UpdateJobRequest(labels={"a": "b"}, **of),
            "job_id",
            "JOB_NOT_FOUND",
        ),
        ("nodes", "DrainNode", node_api.DrainNodeRequest, "node_id", "NODE_NOT_FOUND"),
        ("nodes", "ResumeNode", node_api.ResumeNodeRequest, "node_id", "NODE_NOT_FOUND"),
    ],
)
def test_who_is_not_known_is_not_found_and_who_is_not_named_is_asked_for(
    service, method, request_of, field, reason, server, refused
):
    call = getattr(getattr(server, service), method)

    unknown, unnamed = refused(call, request_of(**{field: "nobody"})), refused(call, request_of())

    assert (grpc.StatusCode.NOT_FOUND, reason) == (unknown.code, unknown.reason)
    assert (grpc.StatusCode.INVALID_ARGUMENT, [field]) == (unnamed.code, list(unnamed.fields))


def test_a_label_that_is_no_label_and_a_priority_that_is_none_are_named(server, queued, refused):
    request = job_api.UpdateJobRequest(job_id=queued(), priority=9, labels={"Team": "x"})  # type: ignore[arg-type]  # not one

    status = refused(server.jobs.UpdateJob, request)

    assert grpc.StatusCode.INVALID_ARGUMENT == status.code
    assert ["priority", 'labels["Team"]'] == list(status.fields)


@pytest.fixture
def machine(store) -> Node:
    """A machine of two slots in a pool of its own, with everything that a machine can tell of itself."""
    slots = (Slot(index=0), Slot(index=1, trouble="process 7 of somebody else holds 3 GiB"))
    versions = {"python": "3.12", "torch": "2.15"}
    node = Node(
        id="n1", pool="quiet", state=NodeState.READY, slots=slots, version="1.0", versions=versions, address="10.0.0.1"
    )
    store.heartbeat(node)
    return node


def listed(server, pool: str = "quiet") -> list[Any]:
    return list(server.nodes.ListNodes(node_api.ListNodesRequest(pool=pool), timeout=20).nodes)


def test_machines_are_listed_with_what_they_told_and_the_jobs_in_their_slots(server, store, queued, machine):
    job_id = queued(resources={"pool": "other"})
    store.dispatch(job_id, "n1", 0)

    (found,) = listed(server)

    assert [(job_id, ""), ("", machine.slots[1].trouble)] == [(slot.job_id, slot.trouble) for slot in found.slots]
    assert (machine.versions, "10.0.0.1", "") == (dict(found.versions), found.address, found.reason)
    assert [] == listed(server, "other")


@pytest.mark.parametrize(("finish", "asked"), [(False, Drain.REQUEUE), (True, Drain.FINISH)])
def test_a_drained_machine_says_so_hears_of_it_and_takes_jobs_again_when_it_is_told(
    finish, asked, server, store, machine
):
    request = node_api.DrainNodeRequest(node_id="n1", finish=finish)

    drained = [server.nodes.DrainNode(request, timeout=20).node for _ in range(2)]

    assert [(node_pb2.Node.STATE_DRAINING, "drained by request")] * 2 == [(node.state, node.reason) for node in drained]
    assert asked is store.heartbeat(machine)
    again = [server.nodes.ResumeNode(node_api.ResumeNodeRequest(node_id="n1"), timeout=20).node for _ in range(2)]
    assert [(node_pb2.Node.STATE_READY, "")] * 2 == [(node.state, node.reason) for node in again]
    assert Drain.NO is store.heartbeat(machine)


def test_a_machine_whose_hardware_failed_twice_is_excluded_until_it_is_resumed(server, store, running, machine):
    for _ in range(2):
        store.recover(running(), "the device fell off the bus", faulty="n1")

    (found,) = listed(server)

    assert node_pb2.Node.STATE_EXCLUDED == found.state
    assert "podium undrain n1" in found.reason
    again = server.nodes.ResumeNode(node_api.ResumeNodeRequest(node_id="n1"), timeout=20).node
    assert node_pb2.Node.STATE_READY == again.state
