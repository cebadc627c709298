"""Real agents, supervisors and horses on a real Redis; a tiny backbone on a CPU; killed for real."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import redis
from PIL import Image
from rq import Queue

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.datasets import scan_classes
from podium.jobs.delivery import FUNCTION, delivery_id, payload, queue_name
from podium.jobs.events import merge_metrics
from podium.jobs.job import Cause, Job, NodeState
from podium.jobs.settings import Settings
from podium.jobs.spec import (
    CheckpointPolicy,
    Evaluation,
    FullFineTuning,
    ImageFolder,
    Interpolation,
    JobSpec,
    Preprocessing,
    Resize,
    Subset,
)
from podium.jobs.states import State
from podium.jobs.store import Assignment, Leases, NewJob
from podium.jobs.store.redis import RedisStore, connect
from podium.worker.attempt import DRAINED

LEASES = Leases(attempt=6, starting=60, node=6)
NODE = "here"


class Site:
    """One Redis, one artifact directory, and agents on them."""

    def __init__(self, redis_url: str, root: Path) -> None:
        self.root = root
        self.redis_url = redis_url
        self.settings = Settings(
            redis_url=redis_url,
            redis_password=None,
            artifacts=str(root / "artifacts"),
            data_roots=(str(root),),
            leases=LEASES,
        )
        self.client: redis.Redis = connect(self.settings)
        self.store = RedisStore(self.client, leases=LEASES)
        self.artifacts = ArtifactStore(self.settings.artifacts)
        self.agents: list[subprocess.Popen[bytes]] = []

    def start_agent(self) -> "subprocess.Popen[bytes]":
        """An agent with two CPU slots, so one thread each, once the pool knows it; slot 0 is used."""
        environment = os.environ | {
            "PODIUM_REDIS_URL": self.redis_url,
            "PODIUM_ARTIFACTS": self.settings.artifacts,
            "PODIUM_LEASE_ATTEMPT": str(LEASES.attempt),
            "PODIUM_LEASE_NODE": str(LEASES.node),
        }
        for node in self.store.nodes():
            self.store.remove_node(node.id)
        command = (sys.executable, "-m", "podium.worker", "--node", NODE, "--cpu-slots", "2")
        agent = subprocess.Popen(command, env=environment)
        self.agents.append(agent)
        until(lambda: [NodeState.READY] == [node.state for node in self.store.nodes()], "the agent to come up")
        return agent

    def create(self, images: str, **changes: object) -> Job:
        """A queued job; keywords replace parts of its spec."""
        parts: dict[str, object] = {
            "backbone": "timm/test_resnet",
            "tuning": FullFineTuning(),
            "dataset": ImageFolder(train=images, val_fraction=0.25),
            "preprocessing": Preprocessing(
                image_size=32,
                resize=Resize.SQUASH,
                crop_fraction=1.0,
                interpolation=Interpolation.BILINEAR,
                mean=(0.5, 0.5, 0.5),
                std=(0.25, 0.25, 0.25),
            ),
            "k": {1: 0.5, 2: 0.5},
            "m": 3,
            "sorter": Subset(),
            "epochs": 40,
            "batch_size": 6,
            "evaluation": Evaluation(top_k=(1, 2), every_epochs=10),
            "checkpoints": CheckpointPolicy(every_epochs=5),
        }
        spec = JobSpec(**parts | changes)  # type: ignore[arg-type]
        job, _ = self.store.create(NewJob(project="p", spec=spec, classes=tuple(scan_classes(images))))
        return job

    def dispatch(self, job: Job) -> Assignment:
        """Reserves the slot and delivers, as the dispatcher does."""
        assignment = self.store.dispatch(job.id, NODE, 0)
        self.deliver(assignment)
        return assignment

    def deliver(self, assignment: Assignment, suffix: str = "") -> None:
        self.queue.enqueue_call(
            FUNCTION, kwargs=payload(assignment), job_id=delivery_id(assignment) + suffix, timeout=-1
        )

    @property
    def queue(self) -> Queue:
        return Queue(queue_name(NODE, 0), connection=self.client, serializer="json")

    def state(self, job: Job) -> State:
        return self.store.get(job.id).state

    def steps(self, job: Job, attempt: int | None = None) -> list[int]:
        """The steps with a training loss, of one attempt or, merged, of all."""
        batches = [(by, batch) for by, batch in self.store.metrics(job.id) if attempt in (None, by)]
        return sorted(merge_metrics(batches).get("train/loss", {}))

    def wait_for(self, job: Job, *states: State) -> Job:
        until(lambda: self.state(job) in states, f"{job.id} to be {states}")
        return self.store.get(job.id)

    def wait_for_checkpoint(self, job: Job, attempt: int) -> None:
        def written() -> bool:
            return any(checkpoint.attempt == attempt for checkpoint in self.store.checkpoints(job.id))

        until(written, f"a checkpoint of attempt {attempt}")

    def processes(self, module: str) -> list[psutil.Process]:
        """The descendants of this test's processes that run a module; orphans too."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ", "status"]):
            ours = (process.info["environ"] or {}).get("PODIUM_ARTIFACTS") == self.settings.artifacts
            if ours and module in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def horse(self) -> psutil.Process:
        """The process of slot 0: of its attempt, or the spare one."""

        def found() -> list[psutil.Process]:
            return [one for one in self.processes("podium.worker.horse") if one.cmdline()[3].endswith(":0")]

        until(lambda: len(found()) == 1, "a horse")
        return found()[0]

    def kill_everything(self) -> None:
        """As if the machine lost its power."""
        for module in ("podium.worker", "podium.worker.slot", "podium.worker.horse"):
            for process in self.processes(module):
                process.kill()
        for agent in self.agents:
            agent.wait()


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    # A database of its own: the session's server, which leads on the first one, would dispatch these jobs.
    site = Site(f"{redis_url}?db=2", tmp_path)
    yield site
    site.kill_everything()
    site.client.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label in range(3):
        (root / f"class{label}").mkdir()
        for number in range(8):
            pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[..., label] += 130
            Image.fromarray(pixels).save(root / f"class{label}" / f"{number}.png")
    return str(root)


STEPS = list(range(1, 121))


def test_a_job_survives_a_killed_horse_a_drained_and_a_killed_machine_with_every_step_once(site, images):
    job = site.create(images)
    agent = site.start_agent()

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

    site.start_agent()
    site.dispatch(job)
    site.wait_for_checkpoint(job, 3)
    site.kill_everything()
    held = site.state(job)
    site.start_agent()
    site.wait_for(job, State.QUEUED)
    site.dispatch(job)
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)

    assert done.error is None
    assert "the attempt's process was killed by signal 9 (SIGKILL) on here" == after_kill.attempts[0].outcome
    assert (0, State.QUEUED, DRAINED) == (left_with, after_drain.state, after_drain.attempts[1].outcome)
    assert () == tuple(drained_pool)
    assert State.RUNNING == held
    assert STEPS == site.steps(job)
    assert list(range(0, 121, 30)) == sorted(merge_metrics(list(site.store.metrics(job.id)))["val/loss"])
    resumed = [attempt.resumed_from_step for attempt in done.attempts]
    assert resumed == sorted(set(resumed))
    for earlier, later in zip(done.attempts, done.attempts[1:], strict=False):
        # Nothing of a checkpoint is repeated, and nothing between two attempts is missing.
        assert later.resumed_from_step <= site.steps(job, earlier.number)[-1]
        assert later.resumed_from_step + 1 == site.steps(job, later.number)[0]


def test_a_job_trains_to_the_end_while_redis_restarts_and_strangers_are_refused(site, images, redis_server, tmp_path):
    agent = site.start_agent()
    trap = tmp_path / "trap"
    stranger = site.queue.enqueue("os.system", f"touch {trap}")
    job = site.create(images, dataset=ImageFolder(train=images, val=images, test=images))

    assignment = site.dispatch(job)
    site.deliver(assignment, suffix="-again")
    until(lambda: len(site.steps(job)) > 20, "twenty steps")
    redis_server.restart()
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)
    until(lambda: not len(site.queue), "the second delivery to be taken")

    metrics = merge_metrics(list(site.store.metrics(job.id)))
    checkpoints = site.store.checkpoints(job.id)
    assert done.error is None
    assert not trap.exists()
    assert "only podium.worker.entry.run" in stranger.latest_result().exc_string
    assert list(range(1, 161)) == site.steps(job)
    assert [0, 160] == sorted(metrics["test/top1"])
    assert metrics["test/top1"][160] > metrics["test/top1"][0]
    assert list(range(0, 161, 40)) == sorted(metrics["val/loss"])
    assert [140, 160] == [checkpoint.step for checkpoint in checkpoints if not checkpoint.best][-2:]
    assert 1 == sum(checkpoint.best for checkpoint in checkpoints)
    assert len(checkpoints) <= 3
    assert {checkpoint.id for checkpoint in checkpoints} == {m.id for m in site.artifacts.manifests(job.id)}
    for manifest in site.artifacts.manifests(job.id):
        site.artifacts.verify(manifest)
    assert 1 == len(done.attempts)
    assert agent.poll() is None


def test_cancelling_saves_a_checkpoint_and_a_broken_image_fails_the_job_by_name(site, images, tmp_path):
    site.start_agent()
    job = site.create(images, epochs=3000, checkpoints=CheckpointPolicy(every_epochs=3000))
    site.dispatch(job)
    until(lambda: site.steps(job), "the first step")
    site.store.cancel(job.id, "enough")
    cancelled = site.wait_for(job, State.CANCELLED)

    broken = tmp_path / "broken"
    for label in "ab":
        (broken / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32)).save(broken / label / f"{number}.png")
    (broken / "b" / "2.png").write_bytes(b"not an image")
    second = site.create(str(broken), k={1: 1.0}, m=2, evaluation=Evaluation(top_k=(1,)))
    site.dispatch(second)
    failed = site.wait_for(second, State.FAILED, State.SUCCEEDED)

    assert "cancelled" in cancelled.state_reason
    assert site.steps(job)[-1] == max(checkpoint.step for checkpoint in site.store.checkpoints(job.id))
    assert failed.error is not None
    assert Cause.DATA == failed.error.cause
    assert "b/2.png" in failed.error.message


def test_an_attempt_that_was_replaced_while_it_slept_leaves_no_trace(site, images):
    site.start_agent()
    job = site.create(images, epochs=3000)
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
    agent = site.start_agent()
    job = site.create(images, epochs=3000, checkpoints=CheckpointPolicy(every_epochs=3000))
    site.dispatch(job)
    until(lambda: site.steps(job), "the first step")
    orphan = site.horse()

    agent.kill()
    site.start_agent()
    back = site.store.get(job.id)

    # The new agent let the orphans finish before it took their place.
    assert (State.QUEUED, DRAINED) == (back.state, back.attempts[0].outcome)
    assert site.steps(job)[-1] == site.store.checkpoints(job.id)[-1].step
    assert not orphan.is_running()
