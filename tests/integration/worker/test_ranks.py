"""A job with two devices: torchrun and two gloo ranks on the CPU, killed for real."""

from PIL import Image

from podium.jobs.events import merge_metrics
from podium.jobs.job import Cause
from podium.jobs.spec import CheckpointPolicy, Evaluation, Resources
from podium.jobs.states import State
from tests.integration.worker.conftest import gone

TWO = Resources(gpus=2)
PATIENT = "tests.integration.worker.patient"


def test_a_job_of_two_ranks_survives_a_killed_rank_and_a_killed_horse_with_every_step_once(site, images):
    saving = CheckpointPolicy(every_steps=3)
    job = site.create(images, resources=TWO, epochs=20, checkpoints=saving, display_name="2")
    site.start_agent(slots=2, PODIUM_TRAINER=PATIENT)

    site.dispatch(job)
    site.wait_for_checkpoint(job, 1)
    second = next(one for one in site.processes("podium.worker.rank") if one.environ()["RANK"] == "1")
    told = site.told_in_ps()
    second.kill()
    after_rank = site.wait_for(job, State.QUEUED, State.FAILED)

    site.dispatch(job)
    site.wait_for_checkpoint(job, 2)
    orphans = site.processes("podium.worker.rank", "podium.worker.torchrun")
    site.horse().kill()
    after_horse = site.wait_for(job, State.QUEUED, State.FAILED)
    left = [one for one in orphans if not gone(one)]

    site.dispatch(job)
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)

    died = "the attempt's process of rank 1 of 2 was killed by signal 9 (SIGKILL) on here"
    assert died == after_rank.attempts[0].outcome
    assert "the attempt's process was killed by signal 9 (SIGKILL) on here" == after_horse.attempts[1].outcome
    assert (3, []) == (len(orphans), left)
    assert [] == told
    assert done.error is None
    assert (0, 1) == done.attempts[-1].slots
    assert list(range(1, 61)) == site.steps(job)
    assert list(range(0, 61, 30)) == sorted(merge_metrics(list(site.store.metrics(job.id)))["val/loss"])


def test_a_rank_that_fails_is_named_with_its_traceback(site, tmp_path):
    broken = tmp_path / "broken"
    for label in "ab":
        (broken / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32)).save(broken / label / f"{number}.png")
    (broken / "b" / "2.png").write_bytes(b"not an image")
    site.start_agent(slots=2, PODIUM_TRAINER=PATIENT)
    job = site.create(str(broken), resources=TWO, k={1: 1.0}, m=2, evaluation=Evaluation(top_k=(1,)), display_name="0")
    site.dispatch(job)
    failed = site.wait_for(job, State.FAILED, State.SUCCEEDED)

    assert failed.error is not None
    assert Cause.DATA is failed.error.cause
    assert failed.error.message.startswith("rank ")
    assert " of 2: " in failed.error.message
    assert "b/2.png" in failed.error.message
    assert "Traceback" in failed.error.traceback
