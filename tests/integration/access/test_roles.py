"""What each role may do, and that what is another project's is as good as not there."""

from typing import Any

from podium.api.keda import external_scaler_service_pb2 as keda
from podium.api.keda.external_scaler_service_pb2_grpc import ExternalScalerStub
from podium.api.v1 import (
    checkpoint_service_pb2,
    job_service_pb2,
    log_service_pb2,
    metric_service_pb2,
    node_service_pb2,
    server_service_pb2,
)
from podium.jobs.job import Checkpoint
from tests.integration.access.conftest import ADMIN, SUBMITTER, VIEWER


def about(method: str, job_id: str) -> Any:
    """A request about a job."""
    return getattr(job_service_pb2, f"{method}Request")(job_id=job_id)


def of_project(request_for: Any, project: str, **more: Any) -> Any:
    request = request_for(**more)
    request.project = project
    return request


def test_a_viewer_looks_and_a_submitter_changes_and_both_see_their_own_project_only(play, request_for):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        token, secret = await root.make("ci", "vision", SUBMITTER)
        submitter = anonymous.with_secret(secret)
        viewer = anonymous.with_secret((await root.make("eye", "vision", VIEWER))[1])

        checked = await submitter.ask(submitter.jobs.CreateJob, of_project(request_for, "vision", validate_only=True))
        assert f"{token.id} (ci)" == checked.job.created_by
        job = (await submitter.ask(submitter.jobs.CreateJob, of_project(request_for, "vision"))).job
        assert f"{token.id} (ci)" == job.created_by

        watch = viewer.open(viewer.jobs.WatchJobs, job_service_pb2.WatchJobsRequest(after_sequences={job.id: 0}))
        assert job.id == (await watch.read()).event.job_id
        watch.cancel()
        got = (await viewer.ask(viewer.jobs.GetJob, about("GetJob", job.id))).job
        assert f"{token.id} (ci)" == got.created_by
        for method in ("CancelJob", "PauseJob", "ResumeJob", "DeleteJob"):
            refused = await viewer.refused(getattr(viewer.jobs, method), about(method, job.id))
            assert "PERMISSION_DENIED" == refused.code
            assert "SUBMITTER" == refused.metadata["role"]
            # Whether or not there is such a job.
            again = await viewer.refused(getattr(viewer.jobs, method), about(method, "job-of-nobody"))
            assert refused == again
        await submitter.ask(submitter.jobs.CancelJob, about("CancelJob", job.id))

        for caller, request in ((submitter, request_for()), (viewer, of_project(request_for, "vision"))):
            assert "PERMISSION_DENIED" == (await caller.refused(caller.jobs.CreateJob, request)).code
        refused = await viewer.refused(viewer.jobs.ListJobs, job_service_pb2.ListJobsRequest())
        assert "PERMISSION_DENIED" == refused.code
        assert "'vision'" in refused.sentence
        listed = await viewer.ask(viewer.jobs.ListJobs, job_service_pb2.ListJobsRequest(project="vision"))
        assert [job.id] == [found.id for found in listed.jobs]

    play(scenario)


def test_a_job_of_another_project_is_answered_in_the_words_for_one_that_does_not_exist(play, request_for):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        stranger = anonymous.with_secret((await root.make("x", "vision", SUBMITTER))[1])
        job_id = (await root.ask(root.jobs.CreateJob, request_for())).job.id
        nobodys = "job-" + "0" * (len(job_id) - 4)

        for method in ("GetJob", "CancelJob", "PauseJob", "ResumeJob", "DeleteJob", "WatchJob", "UpdateJob"):
            foreign = await stranger.refused(getattr(stranger.jobs, method), about(method, job_id))
            missing = await stranger.refused(getattr(stranger.jobs, method), about(method, nobodys))
            assert ("NOT_FOUND", "JOB_NOT_FOUND") == (missing.code, missing.reason), method
            assert missing.sentence.replace(nobodys, job_id) == foreign.sentence
            assert (missing.code, missing.reason) == (foreign.code, foreign.reason)
        watched = job_service_pb2.WatchJobsRequest(after_sequences={job_id: 0})
        assert "NOT_FOUND" == (await stranger.refused(stranger.jobs.WatchJobs, watched)).code
        for method, kind in (
            (stranger.checkpoints.ListCheckpoints, checkpoint_service_pb2.ListCheckpointsRequest),
            (stranger.metrics.QueryMetrics, metric_service_pb2.QueryMetricsRequest),
            (stranger.logs.ReadLogs, log_service_pb2.ReadLogsRequest),
        ):
            assert "JOB_NOT_FOUND" == (await stranger.refused(method, kind(job_id=job_id))).reason
        # And nothing has come of all that.
        assert 1 == (await root.ask(root.jobs.GetJob, about("GetJob", job_id))).job.sequence

    play(scenario)


def test_a_checkpoint_of_another_project_can_neither_be_read_nor_started_from(play, request_for, store):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        stranger = anonymous.with_secret((await root.make("x", "vision", SUBMITTER))[1])
        job_id = (await root.ask(root.jobs.CreateJob, request_for())).job.id
        assignment = store.dispatch(job_id, "played", 0)
        store.begin(assignment)
        store.commit_checkpoint(assignment, Checkpoint(id="ckpt-a", job_id=job_id, attempt=1, step=1))

        def reading(checkpoint_id: str) -> Any:
            return checkpoint_service_pb2.ReadCheckpointRequest(checkpoint_id=checkpoint_id, file="model")

        def starting(checkpoint_id: str) -> Any:
            return of_project(request_for, "vision", weights={"checkpoint": checkpoint_id})

        for method, request in (
            (stranger.checkpoints.ReadCheckpoint, reading),
            (stranger.jobs.CreateJob, starting),
        ):
            foreign, missing = [await stranger.refused(method, request(name)) for name in ("ckpt-a", "ckpt-b")]
            assert ("NOT_FOUND", "CHECKPOINT_NOT_FOUND") == (foreign.code, foreign.reason)
            assert missing.sentence.replace("ckpt-b", "ckpt-a") == foreign.sentence
        assert "FILE_NOT_FOUND" == (await root.refused(root.checkpoints.ReadCheckpoint, reading("ckpt-a"))).reason
        await root.ask(root.jobs.CreateJob, starting("ckpt-a"))

    play(scenario)


def test_machines_and_the_catalogue_are_for_every_token_and_draining_is_for_admins_of_all_projects(play):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        viewer = anonymous.with_secret((await root.make("x", "vision", VIEWER))[1])
        admin = anonymous.with_secret((await root.make("x", "vision", ADMIN))[1])

        await viewer.ask(viewer.nodes.ListNodes, node_service_pb2.ListNodesRequest())
        await viewer.ask(viewer.catalogue.ListSorters, server_service_pb2.ListSortersRequest())
        drain = node_service_pb2.DrainNodeRequest(node_id="n1")
        for caller in (viewer, admin):
            assert "PERMISSION_DENIED" == (await caller.refused(caller.nodes.DrainNode, drain)).code
        assert "NODE_NOT_FOUND" == (await root.refused(root.nodes.DrainNode, drain)).reason

    play(scenario)


def test_kedas_trigger_shows_its_token_in_its_own_metadata(play):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        _, secret = await root.make("keda", "vision", VIEWER)
        scaler = ExternalScalerStub(anonymous.channel)

        def trigger(**metadata: str) -> keda.ScaledObjectRef:
            return keda.ScaledObjectRef(
                name="x", scaler_metadata={"pool": "default", "slotsPerMachine": "8", **metadata}
            )

        assert "TOKEN_MISSING" == (await anonymous.refused(scaler.IsActive, trigger())).reason
        assert not (await anonymous.ask(scaler.IsActive, trigger(tokenFromEnv=secret))).result
        request = keda.GetMetricsRequest(scaled_object_ref=trigger(token=secret), metric_name="podium-slots")
        assert 0 == (await anonymous.ask(scaler.GetMetrics, request)).metric_values[0].metric_value

    play(scenario)
