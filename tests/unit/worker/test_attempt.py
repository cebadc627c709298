import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podium.jobs import wire
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import UnavailableError
from podium.jobs.events import JobEvent, LogBatch
from podium.jobs.job import Cause, Job, Node, NodeState, Slot
from podium.jobs.settings import Settings
from podium.jobs.spec import CheckpointPolicy, ConstantSchedule, Sgd, Weights
from podium.jobs.states import State
from podium.jobs.store import Assignment, Leases, MemoryStore, NewJob
from podium.worker.attempt import DRAINED, Attempt
from podium.worker.job_context import StopReason
from podium.worker.stop import StopFlag


class Site:
    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.artifacts = ArtifactStore(str(root))
        self.settings = Settings(redis_url="", redis_password=None, artifacts=str(root), data_roots=(), leases=Leases())
        self.store.heartbeat(Node(id="n", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))

    def create(self, job: Job) -> Job:
        return self.store.create(NewJob(project="p", spec=job.spec, classes=job.classes))[0]

    def log(self, job: Job) -> list[str]:
        events = (wire.from_bytes(JobEvent, one.data).payload for one in self.store.events(job.id, after=0).events)
        return [line.text for batch in events if isinstance(batch, LogBatch) for line in batch.lines]

    def run(
        self, job: Job, *, store: Any = None, stop: StopFlag | None = None, assignment: Assignment | None = None
    ) -> Job:
        assignment = assignment or self.store.dispatch(job.id, "n", 0)
        flag = stop or StopFlag()
        Attempt(store or self.store, self.artifacts, assignment, self.settings, flag, threads=1).run()
        return self.store.get(job.id)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "artifacts")


def test_a_finished_job_keeps_the_best_and_the_newest_checkpoints(site, images, job):
    wanted = job(images("train"), epochs=6, checkpoints=CheckpointPolicy(every_steps=1, keep_last=2))
    done = site.run(site.create(wanted))

    checkpoints = site.store.checkpoints(done.id)
    assert State.SUCCEEDED is done.state
    # The last one of the training, and the model that is handed over.
    assert [18, 18] == [checkpoint.step for checkpoint in checkpoints][-2:]
    assert len(checkpoints) <= 3
    assert 1 == sum(checkpoint.best for checkpoint in checkpoints)
    assert {checkpoint.id for checkpoint in checkpoints} == {m.id for m in site.artifacts.manifests(done.id)}
    assert [] == list((site.artifacts.root / "jobs" / done.id / "tmp").iterdir())


def test_a_drained_attempt_gives_its_job_back_and_the_next_one_goes_on(site, images, job):
    created = site.create(job(images("train"), epochs=3))
    stop = StopFlag()
    append = site.store.append

    def drain_after_points(*arguments):
        stop.request(StopReason.DRAINED)
        return append(*arguments)

    site.store.append = drain_after_points
    back = site.run(created, stop=stop)
    site.store.append = append
    done = site.run(created)

    assert (State.QUEUED, DRAINED) == (back.state, back.attempts[0].outcome)
    assert State.SUCCEEDED is done.state


def test_a_damaged_checkpoint_is_passed_over(site, images, job):
    created = site.create(job(images("train"), epochs=3, checkpoints=CheckpointPolicy(keep_last=3)))
    assignment = site.store.dispatch(created.id, "n", 0)
    site.store.finish = lambda *arguments, **options: site.store.recover(assignment, "lost at the very end")
    site.run(created, assignment=assignment)
    del site.store.finish
    newest = site.artifacts.manifests(created.id)[0]
    with site.artifacts.path(newest, "model.safetensors").open("r+b") as file:
        file.write(b"damage")

    done = site.run(created)

    assert State.SUCCEEDED is done.state
    # The one before it is that of the last step of the training.
    assert [0, 9] == [attempt.resumed_from_step for attempt in done.attempts]
    assert any(f"passing over {newest.id} of step 9" in line for line in site.log(done))


def test_an_attempt_of_a_job_that_was_deleted_leaves_at_once_and_writes_nothing(site, images, job):
    created = site.create(job(images("train")))
    assignment = site.store.dispatch(created.id, "n", 0)
    site.store.cancel(created.id, "why", force=True)
    site.store.delete(created.id)

    Attempt(site.store, site.artifacts, assignment, site.settings, StopFlag(), threads=1).run()
    assert [] == list(site.artifacts.root.rglob("*"))


def test_a_stale_assignment_leaves_at_once_and_quietly(site, images, job):
    created = site.create(job(images("train")))
    assignment = site.store.dispatch(created.id, "n", 0)
    site.store.recover(assignment, "declared lost")
    before = site.store.get(created.id)

    assert before == site.run(created, assignment=assignment)


def test_an_assignment_is_begun_by_one_process_only(site, images, job):
    created = site.create(job(images("train")))
    assignment = site.store.dispatch(created.id, "n", 0)
    site.store.begin(assignment)
    before = site.store.get(created.id)

    assert before == site.run(created, assignment=assignment)


def test_a_job_that_was_cancelled_before_its_attempt_came_does_not_train(site, images, job):
    created = site.create(job(images("train")))
    assignment = site.store.dispatch(created.id, "n", 0)
    site.store.cancel(created.id, "changed my mind")
    done = site.run(created, assignment=assignment)

    assert State.CANCELLED is done.state
    assert not list(site.store.metrics(created.id))


def test_the_deadline_counts_the_time_of_earlier_attempts(site, images, job):
    spec = replace(job(images("train")).spec, max_duration_seconds=1, epochs=100_000)
    created = site.create(replace(job(spec.dataset.train), spec=spec))
    # Its time passes once it has trained, however long that took.
    stop = StopFlag(clock=lambda: 2.0 if list(site.store.metrics(created.id)) else 0.0)
    done = site.run(created, stop=stop)

    assert State.FAILED is done.state
    assert Cause.DEADLINE is done.error.cause
    assert site.store.checkpoints(created.id)


def test_a_loss_that_is_not_finite_fails_the_job_with_a_remedy(site, images, job):
    wanted = job(images("train"), optimizer=Sgd(learning_rate=1000.0), schedule=ConstantSchedule(), epochs=50)
    done = site.run(site.create(wanted))

    assert State.FAILED is done.state
    assert Cause.NON_FINITE is done.error.cause
    assert "learning rate" in done.error.remedy


def test_a_job_that_fails_leaves_nothing_of_what_its_attempts_handed_on(site, images, job):
    created = site.create(job(images("train"), epochs=3, weights=Weights(file="/nowhere.safetensors")))
    scratch = site.artifacts.scratch_path(created.id)
    scratch.mkdir(parents=True)
    (scratch / "of-an-earlier-attempt.safetensors").touch()

    assert State.FAILED is site.run(created).state
    assert not scratch.exists()


def test_missing_images_fail_the_job(site, images, job, tmp_path):
    wanted = job(images("train"))
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    done = site.run(site.create(wanted))

    assert Cause.DATA is done.error.cause
    assert "does not exist" in done.error.message


class Flaky:
    """A ledger one third of whose calls do not come through, half of those after they were carried out.

    By chance and not by turns: two callers that retry in step would meet the same turns for ever.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._chance = random.Random(0)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            chance = self._chance.random()
            if chance < 1 / 6:
                raise UnavailableError("not sent")
            result = method(*arguments, **options)
            if chance > 5 / 6 and name != "begin":
                raise UnavailableError("the answer was lost")
            return result

        return call


def test_a_flaky_ledger_changes_nothing_about_the_job(site, images, job):
    done = site.run(created := site.create(job(images("train"))), store=Flaky(site.store))

    points = [
        step
        for _, batch in site.store.metrics(created.id)
        for series in batch.series
        for step in series.steps
        if series.name == "train/loss"
    ]
    assert State.SUCCEEDED is done.state
    assert list(range(1, 7)) == points


def test_the_supervising_processes_hold_no_torch():
    code = (
        "import sys; import podium.worker.__main__, podium.worker.agent, podium.worker.slot, podium.worker.inventory;"
        "import podium.worker.horse; sys.exit('torch' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_the_import_of_the_loop_brings_no_queue_and_no_ledger_and_touches_neither_device_nor_seed():
    """A spare process imports it before it knows its attempt."""
    code = (
        "import sys, torch; seed = torch.get_rng_state(); import podium.worker.fit;"
        "brought = {'rq', 'redis', 'grpc', 'podium.jobs.store'} & set(sys.modules);"
        "print(brought or '', torch.cuda.is_initialized(), torch.equal(seed, torch.get_rng_state()))"
    )

    assert ["False", "True"] == subprocess.check_output([sys.executable, "-c", code], text=True).split()


def test_fencing_is_above_every_other_reason_to_stop():
    stop = StopFlag(clock=iter([0.0, 5.0, 20.0]).__next__)
    stop.end_in(10)

    assert stop.reason is None
    assert StopReason.DEADLINE is stop.reason
    stop.request(StopReason.CANCELLED)
    stop.request(StopReason.DRAINED)
    assert StopReason.CANCELLED is stop.reason
    stop.request(StopReason.FENCED)
    assert StopReason.FENCED is stop.reason


def test_a_damaged_checkpoint_does_not_push_the_next_ones_off_the_list(site, images, job):
    created = site.create(job(images("train"), epochs=3, checkpoints=CheckpointPolicy(every_steps=1, keep_last=1)))
    assignment = site.store.dispatch(created.id, "n", 0)
    site.store.finish = lambda *arguments, **options: site.store.recover(assignment, "lost at the very end")
    site.run(created, assignment=assignment)
    del site.store.finish
    newest = site.store.checkpoints(created.id)[-1]
    site.artifacts.path(site.artifacts.manifest(created.id, newest.id), "model.safetensors").write_bytes(b"damage")

    done = site.run(created)

    listed = site.store.checkpoints(created.id)
    assert State.SUCCEEDED is done.state
    assert newest.id not in [one.id for one in listed]
    assert newest.step == listed[-1].step


def test_images_that_changed_since_the_checkpoint_fail_the_job_instead_of_leaking_into_val(site, images, job):
    train = images("train")
    created = site.create(job(train, epochs=3))
    stop = StopFlag()
    append = site.store.append

    def drain_after_points(*arguments):
        stop.request(StopReason.DRAINED)
        return append(*arguments)

    site.store.append = drain_after_points
    site.run(created, stop=stop)
    site.store.append = append
    (Path(train) / "class0" / "more.png").write_bytes((Path(train) / "class0" / "0.png").read_bytes())

    done = site.run(created)

    assert site.store.checkpoints(created.id)
    assert State.FAILED is done.state
    assert Cause.DATA is done.error.cause
    assert "have changed" in done.error.message


def test_a_checkpoints_manifest_says_by_digest_what_the_model_started_from(site, images, job, tmp_path):
    train = images("train")
    first = site.run(site.create(job(train)))
    (best,) = [one for one in site.store.checkpoints(first.id) if one.best]
    second = site.run(site.create(job(train, weights=Weights(checkpoint=best.id))))

    model = next(file for file in best.files if file.name == "model.safetensors")
    assert {"random"} == {manifest.weights["name"] for manifest in site.artifacts.manifests(first.id)}
    assert {model.sha256} == {manifest.weights["sha256"] for manifest in site.artifacts.manifests(second.id)}
