"""Redis goes away while attempts run, end and hang: real processes, a trainer that does as scripted."""

from typing import Any

from rq import Queue

from podium.jobs.delivery import FUNCTION, payload, queue_name
from podium.jobs.job import Cause, Job
from podium.jobs.states import State
from tests.integration.worker.conftest import NODE, PROGRAMS, gone
from tests.integration.worker.test_stopping import log, start


def run_on(site: Any, slot: int, job: Job) -> None:
    assignment = site.store.dispatch(job.id, NODE, slot)
    queue = Queue(queue_name(NODE, slot), connection=site.client, serializer="json")
    # RQ's own idea of how long a job may take means nothing.
    queue.enqueue_call(FUNCTION, kwargs=payload(assignment), timeout=1)


def test_what_ends_or_stalls_while_redis_is_away_is_told_when_it_is_back_and_no_supervisor_leaves(
    site, images, redis_server
):
    agent = start(site, slots=3)
    ending = site.create(images, display_name="steps 5, hold-end")
    hanging = site.create(images, display_name="steps 5, hang 3; once", stall_timeout_seconds=4)
    scratch = site.artifacts.scratch_path(ending.id)
    run_on(site, 0, ending)
    site.until(lambda: (scratch / "at").exists(), "the one to be where it waits")
    run_on(site, 1, hanging)
    site.until(lambda: len(site.steps(hanging)) == 2, "the other to hang")
    hung = site.horse(1)
    # RQ's own commands kill without a checkpoint: nobody listens to them.
    channels = site.client.pubsub_channels("rq:*")

    supervisors = {one.pid for one in site.processes("podium.worker.slot")}

    redis_server.kill()
    (scratch / "go").touch()
    site.until(lambda: (scratch / "left").exists(), "the end of the one")
    site.until(lambda: gone(hung), "the end of the other by force")
    redis_server.start()
    ended = site.wait_for(ending, State.SUCCEEDED, State.FAILED)
    stalled = site.wait_for(hanging, State.QUEUED)

    assert 3 == len(supervisors)
    assert [] == channels
    assert (State.SUCCEEDED, 1) == (ended.state, len(ended.attempts))
    assert Cause.STALLED is stalled.attempts[0].cause
    assert any("in _fail" in line for line in log(site, hanging))
    assert supervisors == {one.pid for one in site.processes("podium.worker.slot")}
    assert agent.poll() is None


def test_nothing_of_a_machine_outlives_its_killed_agent_for_long_though_nobody_can_be_told(site, images, redis_server):
    agent = start(site, slots=2, grace=1)
    run_on(site, 0, job := site.create(images, display_name="steps 100000, pause 0.02, hold-stop"))
    site.until(lambda: site.steps(job), "the first step")  # slot 1 has nothing to do
    redis_server.kill()
    agent.kill()
    site.until(lambda: not site.processes(*PROGRAMS), "everything to end", seconds=30)
