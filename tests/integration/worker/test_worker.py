"""Agents, supervisors and horses, killed for real."""

import signal

from podium.jobs.events import merge_metrics
from podium.jobs.spec import ImageFolder
from podium.jobs.states import State
from podium.worker.attempt import DRAINED
from tests.chaos import chain
from tests.integration.worker.conftest import gone

PATIENT = "tests.integration.worker.patient"
SCRIPTED = "tests.chaos.trainer"
LONG = "steps 100000, pause 0.02"


def test_a_job_survives_a_killed_horse_a_drained_and_a_killed_machine_with_every_step_once(site, images):
    job = site.create(images, display_name="3 steps 40, save 3")
    agent = site.start_agent(PODIUM_TRAINER=PATIENT)

    site.dispatch(job)
    site.wait_for_checkpoint(job, 1)
    site.horse().kill()
    after_kill = site.wait_for(job, State.QUEUED)

    site.dispatch(job)
    site.wait_for_checkpoint(job, 2)
    agent.send_signal(signal.SIGTERM)
    left_with = agent.wait(timeout=60)
    after_drain = site.store.get(job.id)
    drained_pool = site.store.nodes()

    site.start_agent(PODIUM_TRAINER=PATIENT)
    site.dispatch(job)
    site.wait_for_checkpoint(job, 3)
    site.kill_everything()
    held = site.state(job)
    site.start_agent(PODIUM_TRAINER=PATIENT)
    site.wait_for(job, State.QUEUED)
    site.dispatch(job)
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)

    assert done.error is None
    assert "the attempt's process was killed by signal 9 (SIGKILL) on here" == after_kill.attempts[0].outcome
    assert (0, State.QUEUED, DRAINED) == (left_with, after_drain.state, after_drain.attempts[1].outcome)
    assert () == tuple(drained_pool)
    assert State.RUNNING == held
    resumed = [attempt.resumed_from_step for attempt in done.attempts]
    assert resumed == sorted(set(resumed))
    for earlier, later in zip(done.attempts, done.attempts[1:], strict=False):
        # Nothing of a checkpoint is repeated, and nothing between two attempts is missing.
        assert later.resumed_from_step <= site.steps(job, earlier.number)[-1]
        assert later.resumed_from_step + 1 == site.steps(job, later.number)[0]
    metrics = merge_metrics(list(site.store.metrics(job.id)))
    assert {step: chain.after(step).loss for step in range(1, 41)} == metrics["train/loss"]
    # A step that was made twice is the later attempt's.
    made = {step: sum(step > start for start in resumed) for step in range(1, 41)}
    assert made == metrics["attempt"]


def test_a_job_trains_to_the_end_while_redis_restarts_and_strangers_are_refused(site, images, redis_server, tmp_path):
    agent = site.start_agent()
    trap = tmp_path / "trap"
    stranger = site.queue.enqueue("os.system", f"touch {trap}")
    job = site.create(images, dataset=ImageFolder(train=images, val=images, test=images))

    assignment = site.dispatch(job)
    site.deliver(assignment, suffix="-again")
    site.until(lambda: len(site.steps(job)) > 20, "twenty steps")
    redis_server.restart()
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)
    site.until(lambda: not len(site.queue), "the second delivery to be taken")

    metrics = merge_metrics(list(site.store.metrics(job.id)))
    checkpoints = site.store.checkpoints(job.id)
    assert done.error is None
    assert not trap.exists()
    assert "only podium.worker.entry.run" in stranger.latest_result().exc_string
    assert list(range(1, 161)) == site.steps(job)
    assert [160] == sorted(metrics["test/top1"])
    assert metrics["test/top1"][160] > metrics["val/top1"][0]
    assert list(range(0, 161, 40)) == sorted(metrics["val/loss"])
    assert (160, True) == (checkpoints[-1].step, checkpoints[-1].best)
    assert 1 == sum(checkpoint.best for checkpoint in checkpoints)
    assert len(checkpoints) <= 3
    assert {checkpoint.id for checkpoint in checkpoints} == {m.id for m in site.artifacts.manifests(job.id)}
    for manifest in site.artifacts.manifests(job.id):
        site.artifacts.verify(manifest)
    assert 1 == len(done.attempts)
    assert agent.poll() is None


def test_cancelling_saves_a_checkpoint(site, images):
    site.start_agent(PODIUM_TRAINER=SCRIPTED)
    job = site.create(images, display_name=LONG)
    site.dispatch(job)
    site.until(lambda: site.steps(job), "the first step")
    site.store.cancel(job.id, "enough")
    cancelled = site.wait_for(job, State.CANCELLED)

    assert "cancelled" in cancelled.state_reason
    assert site.steps(job)[-1] == max(checkpoint.step for checkpoint in site.store.checkpoints(job.id))


def test_an_attempt_that_was_replaced_while_it_slept_leaves_no_trace(site, images):
    site.start_agent(PODIUM_TRAINER=SCRIPTED)
    job = site.create(images, display_name=f"{LONG}, save 5")
    assignment = site.dispatch(job)
    site.wait_for_checkpoint(job, 1)
    horse = site.horse()
    command = horse.cmdline()
    horse.suspend()
    site.store.recover(assignment, "declared lost")
    before = site.store.get(job.id)
    listed = site.store.checkpoints(job.id)

    horse.resume()
    horse.wait(timeout=60)

    assert site.redis_url not in " ".join(command)
    assert before == site.store.get(job.id)
    assert listed == site.store.checkpoints(job.id)
    assert [] == list((site.artifacts.root / "jobs" / job.id / "tmp").iterdir())


def test_an_attempt_whose_agent_is_killed_saves_its_work_and_gives_its_job_back(site, images):
    agent = site.start_agent(PODIUM_TRAINER=SCRIPTED)
    job = site.create(images, display_name=LONG)
    site.dispatch(job)
    site.until(lambda: site.steps(job), "the first step")
    orphan = site.horse()

    agent.kill()
    site.start_agent(PODIUM_TRAINER=SCRIPTED)
    back = site.store.get(job.id)

    # The new agent let the orphans finish before it took their place.
    assert (State.QUEUED, DRAINED) == (back.state, back.attempts[0].outcome)
    assert site.steps(job)[-1] == site.store.checkpoints(job.id)[-1].step
    assert gone(orphan)
