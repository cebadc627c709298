"""Jobs of two machines: two agents on two loopback addresses, killed for real, with the dispatcher and reconciler."""

import hashlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from podium.jobs import wire
from podium.jobs.events import JobEvent, LogBatch
from podium.jobs.job import Attempt, Cause, Job
from podium.jobs.spec import CheckpointPolicy, Resources
from podium.jobs.states import State
from podium.jobs.store import Leases
from podium.server.dispatcher import Dispatcher, Leader, Reconciler, RqDelivery, Sharing, Snapshots
from podium.worker.fit.local import LocalContext
from podium.worker.ranks import Ranks
from podium.worker.stop import StopFlag
from tests.integration.worker.conftest import PROGRAMS, gone, kill_at_once, send

LEASES = Leases(attempt=6, starting=60, node=6)
ADDRESSES = {"n1": "127.0.0.1", "n2": "127.0.0.2"}
BOTH = Resources(nodes=2)
DRILL, PATIENT = "tests.integration.worker.drill", "tests.integration.worker.patient"


class Pool:
    """The site with a leader, and machines by name."""

    def __init__(self, site: Any) -> None:
        self.site = site
        snapshots = Snapshots(site.store, LEASES, Sharing())
        dispatcher = Dispatcher(site.store, RqDelivery(site.client), snapshots)
        self.leader = Leader(
            site.store,
            dispatcher,
            Reconciler(site.store, snapshots, LEASES),
            owner="test",
            tick=0.1,
            reconcile_every=0.2,
        )

    def start(self, node: str, slots: int = 1, **environment: str) -> Any:
        return self.site.start_agent(slots, node=node, PODIUM_ADDRESS=ADDRESSES[node], **environment)

    def of(self, node: str) -> list[psutil.Process]:
        """Everything that runs on a machine."""
        found = self.site.processes(*PROGRAMS)
        words = [(one, one.info["cmdline"]) for one in found]
        return [one for one, line in words if any(node in word.split(":") or word == node for word in line)]

    def ranks(self) -> list[psutil.Process]:
        found: list[psutil.Process] = self.site.processes("podium.worker.rank", "podium.worker.torchrun")
        return found

    def running(self, job: Job, attempt: int) -> Attempt:
        """The attempt, once it has done a step."""
        self.site.until(lambda: self.site.steps(job, attempt), f"attempt {attempt} of {job.id} to train")
        found: Attempt = self.site.store.get(job.id).attempts[attempt - 1]
        return found

    def ended(self, job: Job, attempt: int) -> Attempt:
        """The attempt, once it is over."""

        def over() -> Attempt | None:
            found: Attempt = self.site.store.get(job.id).attempts[attempt - 1]
            return found if found.end_time else None

        self.site.until(over, f"attempt {attempt} of {job.id} to end")
        found = over()
        assert found is not None
        return found


@pytest.fixture
def pool(site: Any) -> Iterator[Pool]:
    pool = Pool(site)
    pool.leader.start()
    yield pool
    pool.leader.stop()


def test_whatever_befalls_one_of_two_machines_ends_the_attempt_on_both_and_says_where(pool, site, images):
    agents = {node: pool.start(node, PODIUM_TRAINER=DRILL) for node in ADDRESSES}
    broken = site.create(images, resources=BOTH, display_name="rank 1 fails")
    failed = site.wait_for(broken, State.FAILED)
    job = site.create(images, resources=BOTH, display_name="march")

    placed = pool.running(job, 1).members
    site.horse(node="n2").kill()
    follower = pool.ended(job, 1)

    pool.running(job, 2)
    orphans = pool.ranks()
    site.horse(node="n1").kill()
    head = pool.ended(job, 2)
    psutil.wait_procs(orphans, timeout=20)

    pool.running(job, 3)
    stopped = pool.of("n2")
    send(signal.SIGSTOP, stopped)
    lost = pool.ended(job, 3)
    send(signal.SIGCONT, stopped)

    pool.running(job, 4)
    agents["n2"].terminate()
    drained = pool.ended(job, 4)
    agents["n2"].wait()
    pool.start("n2", PODIUM_TRAINER=DRILL)

    pool.running(job, 5)
    kill_at_once(pool.of("n2"))
    died = pool.ended(job, 5)
    site.store.cancel(job.id, "enough")

    assert failed.error is not None
    assert (Cause.DATA, "rank 1 of 2 on n2: rank 1 was told to") == (failed.error.cause, failed.error.message)
    assert "LookupError" in failed.error.traceback
    assert [("n1", (0,)), ("n2", (0,))] == [(member.node, member.slots) for member in placed]
    killed = "the attempt's process was killed by signal 9 (SIGKILL) on"
    assert (Cause.INTERNAL, f"{killed} n2") == (follower.cause, follower.outcome)
    assert (Cause.INTERNAL, f"{killed} n1") == (head.cause, head.outcome)
    assert all(map(gone, orphans))
    for ended in (lost, died):
        assert (Cause.NODE_LOST, "the machine n2 was lost") == (ended.cause, ended.outcome)
    assert Cause.PREEMPTED is drained.cause


def test_a_job_that_hangs_on_two_machines_has_the_stacks_of_every_rank_in_its_log_and_is_killed(pool, site, images):
    for node in ADDRESSES:
        pool.start(node, slots=2, PODIUM_TRAINER="tests.chaos.trainer")
    both = Resources(nodes=2, gpus=2)
    job = site.create(images, display_name="steps 9, hang 5", resources=both, stall_timeout_seconds=12)
    pool.running(job, 1)
    ranks = {int(one.environ()["RANK"]): one for one in site.processes("podium.worker.rank")}
    ranks[3].suspend()
    stalled = pool.ended(job, 1)
    site.store.cancel(job.id, "enough", force=True)

    events = [wire.from_bytes(JobEvent, row.data) for row in site.store.log(job.id, limit=1000).rows]
    lines = [line for event in events if isinstance(event.payload, LogBatch) for line in event.payload.lines]
    said = {rank: [line.text for line in lines if line.rank == rank] for rank in range(4)}
    assert Cause.STALLED is stalled.cause
    assert any("in _fail" in text for text in said[0])
    for rank, node in enumerate(["n1", "n1", "n2"]):
        assert f"rank {rank} on {node} (process {ranks[rank].pid}):" in said[rank]
        assert any("in run_as_rank" in text for text in said[rank])
    assert [f"rank 3 on n2 (process {ranks[3].pid}) is stopped by a signal, and does not say where it is"] == said[3]
    assert not psutil.wait_procs(ranks.values(), timeout=20)[1]


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_job_paused_on_two_machines_ends_with_the_bits_of_one_that_ran_on_one_machine(pool, site, images, tmp_path):
    parts = {"epochs": 8, "checkpoints": CheckpointPolicy(every_epochs=4), "display_name": "1"}
    for node in ADDRESSES:
        pool.start(node, PODIUM_TRAINER=PATIENT)
    job = site.create(images, resources=BOTH, **parts)
    pool.running(job, 1)
    site.store.pause(job.id, "lunch")
    paused = site.wait_for(job, State.PAUSED, State.SUCCEEDED, State.FAILED)
    saved, steps = site.store.checkpoints(job.id)[-1].step, site.steps(job)
    site.store.resume(job.id)
    done = site.wait_for(job, State.SUCCEEDED, State.FAILED)

    alone = site.create(images, resources=Resources(gpus=2, pool="nobody"), **parts)
    here = Attempt(number=1, node="here", slot=0, slots=(0, 1))
    context = LocalContext(tmp_path / "alone")
    # As the agents of one slot have it.
    threads = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **threads}
    Ranks(replace(alone, attempts=(here,)), context, StopFlag(), mark="test", environment=environment).run()
    reference = context.newest()

    assert (State.PAUSED, None) == (paused.state, paused.attempts[0].cause)
    # The first attempt waits in step 5; the wish is taken along into one more step, after which all leave.
    assert 1 <= saved == steps[-1] <= 6
    assert done.error is None
    assert list(range(1, 25)) == site.steps(job)
    assert reference is not None
    last = site.artifacts.manifest(job.id, site.store.checkpoints(job.id)[-1].id)
    assert (saved, 24, 24) == (done.attempts[1].resumed_from_step, reference.step, last.step)
    assert _digest(reference.folder) == _digest(site.artifacts.path(last, "model.safetensors").parent)
