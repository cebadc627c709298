"""A job with two devices: torchrun and two gloo ranks on the CPU, killed for real."""

from typing import Any

import psutil
from PIL import Image

from podium.jobs.events import merge_metrics
from podium.jobs.job import Cause
from podium.jobs.spec import CheckpointPolicy, Evaluation, Resources
from podium.jobs.states import State

TWO = Resources(gpus=2)


def ranks(site: Any) -> list[Any]:
    return [*site.processes("podium.worker.rank"), *site.processes("podium.worker.torchrun")]


def test_a_job_of_two_ranks_survives_a_killed_rank_and_a_killed_horse_with_every_step_once(site, images):
    job = site.create(images, resources=TWO, epochs=60)
    site.start_agent(slots=2)

    site.dispatch(job)
    site.wait_for_checkpoint(job, 1)
    second = next(one for one in site.processes("podium.worker.rank") if one.environ()["RANK"] == "1")
    told = site.told_in_ps()
    second.kill()
    after_rank = site.wait_for(job, State.QUEUED, State.FAILED)

    site.dispatch(job)
    site.wait_for_checkpoint(job, 2)
    orphans = ranks(site)
    site.horse().kill()
    after_horse = site.wait_for(job, State.QUEUED, State.FAILED)
    left = [one for one in orphans if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    site.dispatch(job)
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)

    died = "the attempt's process of rank 1 of 2 was killed by signal 9 (SIGKILL) on here"
    assert died == after_rank.attempts[0].outcome
    assert "the attempt's process was killed by signal 9 (SIGKILL) on here" == after_horse.attempts[1].outcome
    assert (3, []) == (len(orphans), left)
    assert [] == told
    assert done.error is None
    assert (0, 1) == done.attempts[-1].slots
    assert list(range(1, 181)) == site.steps(job)
    assert list(range(0, 181, 30)) == sorted(merge_metrics(list(site.store.metrics(job.id)))["val/loss"])


def test_two_ranks_stop_at_one_step_and_a_failing_one_is_named_with_its_traceback(site, images, tmp_path):
    site.start_agent(slots=2)
    job = site.create(images, resources=TWO, epochs=3000, checkpoints=CheckpointPolicy(every_epochs=3000))
    site.dispatch(job)
    site.until(lambda: site.steps(job), "the first step")
    site.store.cancel(job.id, "enough")
    cancelled = site.wait_for(job, State.CANCELLED, State.FAILED)

    broken = tmp_path / "broken"
    for label in "ab":
        (broken / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32)).save(broken / label / f"{number}.png")
    (broken / "b" / "2.png").write_bytes(b"not an image")
    second = site.create(str(broken), resources=TWO, k={1: 1.0}, m=2, evaluation=Evaluation(top_k=(1,)))
    site.dispatch(second)
    failed = site.wait_for(second, State.FAILED, State.SUCCEEDED)

    assert State.CANCELLED is cancelled.state
    assert site.steps(job)[-1] == site.store.checkpoints(job.id)[-1].step
    assert failed.error is not None
    assert Cause.DATA is failed.error.cause
    assert failed.error.message.startswith("rank ")
    assert " of 2: " in failed.error.message
    assert "b/2.png" in failed.error.message
    assert "Traceback" in failed.error.traceback
