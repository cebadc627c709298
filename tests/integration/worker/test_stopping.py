"""How attempts are stopped: real agents, supervisors and ranks, and a trainer that does as scripted."""

import signal
from typing import Any

from podium.jobs import wire
from podium.jobs.events import JobEvent, LogBatch
from podium.jobs.job import Cause, Job, NodeState
from podium.jobs.states import State
from podium.jobs.store import Drain
from podium.worker.attempt import DRAINED, PAUSED, PREEMPTED
from tests.integration.worker.conftest import NODE, gone, send

LONG = "steps 100000, pause 0.02"


def start(site: Any, *, slots: int = 1, grace: float = 60) -> Any:
    return site.start_agent(slots, PODIUM_TRAINER="tests.chaos.trainer", PODIUM_GRACE=str(grace))


def run(site: Any, images: str, script: str, **changes: Any) -> Job:
    """A job whose attempt has finished a step."""
    job: Job = site.create(images, display_name=script, **changes)
    site.dispatch(job)
    site.until(lambda: site.steps(job), "the first step")
    return job


def log(site: Any, job: Job) -> list[str]:
    events = [wire.from_bytes(JobEvent, one.data).payload for one in site.store.events(job.id, after=0).events]
    return [line.text for payload in events if isinstance(payload, LogBatch) for line in payload.lines]


def test_paused_preempted_and_cancelled_by_force_an_attempt_goes_and_the_next_one_goes_on_where_it_stopped(
    site, images
):
    start(site)
    job = run(site, images, LONG)
    site.store.pause(job.id, "lunch")
    paused = site.wait_for(job, State.PAUSED)
    site.store.resume(job.id)

    assignment = site.dispatch(job)
    site.until(lambda: site.steps(job, 2), "a step of the second attempt")
    site.store.preempt(assignment, "somebody is in a hurry")
    preempted = site.wait_for(job, State.QUEUED)

    site.dispatch(job)
    site.until(lambda: site.steps(job, 3), "a step of the third attempt")
    horse = site.horse()
    cancelled = site.store.cancel(job.id, "never mind", force=True)
    horse.wait(timeout=30)

    first, second = preempted.attempts
    assert (PAUSED, None) == (paused.attempts[0].outcome, paused.attempts[0].cause)
    assert first.checkpoint_step == site.steps(job, 1)[-1] == second.resumed_from_step
    assert (PREEMPTED, Cause.PREEMPTED) == (second.outcome, second.cause)
    assert second.checkpoint_step == site.steps(job, 2)[-1]
    assert State.CANCELLED is cancelled.state
    assert cancelled == site.store.get(job.id)


def test_an_attempt_that_does_not_save_its_work_in_time_is_killed(site, images):
    start(site, grace=2)
    job = run(site, images, f"{LONG}, hold-stop")
    horse = site.horse()
    site.store.cancel(job.id, "enough")
    done = site.wait_for(job, State.CANCELLED)

    assert "asked to stop, it had not saved its work after 2 seconds" == done.attempts[0].outcome
    assert gone(horse)


def test_an_attempt_that_hangs_is_killed_with_its_stacks_in_the_log_and_tried_again(site, images):
    start(site)
    job = run(site, images, "steps 8, pause 0.01, save 2, hang 5; once", stall_timeout_seconds=4)
    stalled = site.wait_for(job, State.QUEUED)
    stacks = log(site, job)
    site.dispatch(job)
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)

    assert Cause.STALLED is stalled.attempts[0].cause
    assert "stalled: no sign of progress for 4 seconds" == stalled.attempts[0].outcome
    assert any(line.startswith("attempt (process") for line in stacks)
    assert any('trainer.py", line ' in line and "in _fail" in line for line in stacks)
    assert State.SUCCEEDED is done.state
    assert 4 == done.attempts[1].resumed_from_step


def test_a_process_that_dies_before_it_begins_is_a_failure_like_any_other(site, images):
    start(site)
    # One that gets its order all the same does not come to its end before it is killed.
    job = site.create(images, display_name="steps 3, hold-step 1")
    site.horse().suspend()
    site.dispatch(job)

    def back_in_line() -> bool:
        # One that has not had its order yet is replaced by another one.
        send(signal.SIGKILL, site.processes("podium.worker.horse"))
        return site.state(job) is State.QUEUED

    site.until(back_in_line, "the job to be back in line")
    back = site.store.get(job.id)

    assert Cause.INTERNAL is back.attempts[0].cause
    assert "the attempt's process was killed by signal 9 (SIGKILL) on here" == back.attempts[0].outcome


def test_a_drained_machine_gives_its_jobs_back_and_stays_and_one_that_is_to_finish_leaves_when_they_have_ended(
    site, images
):
    agent = start(site)
    job = run(site, images, f"{LONG}")
    site.store.drain(NODE, Drain.REQUEUE)
    back = site.wait_for(job, State.QUEUED)
    (drained,) = site.store.nodes()
    site.store.drain(NODE, Drain.NO)

    last = run(site, images, "steps 5, hold-step 3")
    agent.send_signal(signal.SIGUSR2)
    site.until(lambda: NodeState.DRAINING in [one.state for one in site.store.nodes()], "the machine to drain")
    (site.artifacts.scratch_path(last.id) / "go").touch()
    left_with = agent.wait(timeout=60)

    assert (DRAINED, Cause.PREEMPTED) == (back.attempts[0].outcome, back.attempts[0].cause)
    assert (NodeState.DRAINING, "drained by request") == (drained.state, drained.reason)
    assert State.SUCCEEDED is site.state(last)
    assert (0, []) == (left_with, list(site.store.nodes()))
