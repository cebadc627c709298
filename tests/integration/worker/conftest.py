"""A machine of the pool: a real Redis, real agents, supervisors and horses, a tiny backbone on a CPU."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from rq import Queue

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.datasets import scan_classes
from podium.jobs.delivery import FUNCTION, delivery_id, payload, queue_name
from podium.jobs.events import merge_metrics
from podium.jobs.job import Job, NodeState
from podium.jobs.settings import Settings
from podium.jobs.spec import CheckpointPolicy, Evaluation
from podium.jobs.states import State
from podium.jobs.store import Assignment, Leases, NewJob
from podium.jobs.store.redis import RedisStore, connect
from tests.tiny import tiny_images, tiny_spec

LEASES = Leases(attempt=6, starting=60, node=6)
NODE = "here"
MARK = "marked-password"
#: All that runs on a machine.
PROGRAMS = tuple(f"podium.worker{part}" for part in ("", ".slot", ".horse", ".torchrun", ".rank"))
_ROOT = str(Path(__file__).parents[3])


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def send(number: signal.Signals, processes: Iterable[psutil.Process]) -> None:
    """Signals those that are there still: one may end for another's end."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_at_once(processes: Iterable[psutil.Process]) -> None:
    """As if their machine lost its power: none lives to see another one die, for which it would save its work."""
    send(signal.SIGSTOP, processes)
    send(signal.SIGKILL, processes)


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

    def start_agent(self, slots: int = 1, *, node: str = NODE, **environment: str) -> "subprocess.Popen[bytes]":
        """An agent with so many CPU slots, once the pool knows it."""
        given = {
            "PODIUM_REDIS_URL": self.redis_url,
            "PODIUM_ARTIFACTS": self.settings.artifacts,
            "PODIUM_LEASE_ATTEMPT": str(LEASES.attempt),
            "PODIUM_LEASE_NODE": str(LEASES.node),
            # Trainers are taken from the tests.
            "PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH")))),
        }
        self.store.remove_node(node)
        command = (sys.executable, "-m", "podium.worker", "--node", node, "--cpu-slots", str(slots))
        agent = subprocess.Popen(command, env={**os.environ, **given, **environment})
        self.agents.append(agent)
        ready = (node, NodeState.READY)
        self.until(lambda: ready in [(one.id, one.state) for one in self.store.nodes()], "the agent to come up")
        return agent

    def create(self, images: str, **changes: object) -> Job:
        """A queued job; keywords replace parts of its spec."""
        recipe = {"epochs": 40, "evaluation": Evaluation(top_k=(1, 2), every_epochs=10)}
        spec = tiny_spec(images, **recipe | {"checkpoints": CheckpointPolicy(every_epochs=5)} | changes)
        job, _ = self.store.create(NewJob(project="p", spec=spec, classes=tuple(scan_classes(images))))
        return job

    def dispatch(self, job: Job) -> Assignment:
        """Reserves as many slots as the job needs and delivers to slot 0, as the dispatcher does."""
        assignment = self.store.dispatch(job.id, NODE, *range(job.spec.resources.gpus))
        self.deliver(assignment)
        return assignment

    def deliver(self, assignment: Assignment, suffix: str = "") -> None:
        self.queue.enqueue_call(
            FUNCTION, kwargs=payload(assignment), job_id=delivery_id(assignment, self.queue.name) + suffix, timeout=-1
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
        self.until(lambda: self.state(job) in states, f"{job.id} to be {states}")
        return self.store.get(job.id)

    def wait_for_checkpoint(self, job: Job, attempt: int) -> None:
        """Of a step that the attempt made: one that was due where it resumed may be written again first."""

        def written() -> bool:
            resumed = self.store.get(job.id).attempts[attempt - 1].resumed_from_step
            listed = self.store.checkpoints(job.id)
            return any(checkpoint.attempt == attempt and checkpoint.step > resumed for checkpoint in listed)

        self.until(written, f"a checkpoint of attempt {attempt}")

    def processes(self, *modules: str) -> list[psutil.Process]:
        """The descendants of this test's processes that run one of the modules, in their order; orphans too."""
        found: list[tuple[int, psutil.Process]] = []
        for process in psutil.process_iter(["cmdline", "create_time", "environ", "status"]):
            ours = (process.info["environ"] or {}).get("PODIUM_ARTIFACTS") == self.settings.artifacts
            module = next((word for word in process.info["cmdline"] or () if word in modules), None)
            if ours and module and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append((modules.index(module), process))
        return [process for _, process in sorted(found, key=lambda one: one[0])]

    def told_in_ps(self) -> list[str]:
        """The arguments of processes of this machine that hold the password."""
        words = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        return [line for line in words if MARK in line]

    def horse(self, slot: int = 0, *, node: str = NODE) -> psutil.Process:
        """The process of a slot: of its attempt, or where none runs the spare one, which is the younger."""

        found: list[psutil.Process] = []

        def there() -> bool:
            # By what it was called when it was seen: it may have ended since.
            horses = self.processes("podium.worker.horse")
            found[:] = [one for one in horses if one.info["cmdline"][3].endswith(f":{node}:{slot}")]
            return bool(found)

        self.until(there, "a horse")
        return min(found, key=lambda one: one.info["create_time"])

    def until(self, condition: Callable[[], object], what: str, seconds: float = 240) -> None:
        """Waits until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            time.sleep(0.05)

    def kill_everything(self) -> None:
        """As if the machine lost its power."""
        while left := self.processes(*PROGRAMS):  # again, as one may have been starting another
            kill_at_once(left)
        for agent in self.agents:
            agent.wait()


@pytest.fixture
def site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    # A database of its own: the session's server, which leads on the first one, would dispatch these jobs.
    # Redis takes any password of a user that needs none; this one may stand in no list of processes.
    site = Site(f"{redis_url}?db=2&username=default&password={MARK}", tmp_path)
    yield site
    site.kill_everything()
    site.client.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_images(tmp_path_factory.mktemp("images"))
