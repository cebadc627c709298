"""What an attempt on several machines does on each of them before any rank is started."""

import threading
from pathlib import Path

import pytest

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.job import Cause, Job, Member
from podium.jobs.settings import Settings
from podium.jobs.spec import Resources
from podium.jobs.states import State
from podium.jobs.store import Assignment, Leases, MemoryStore, NewJob
from podium.worker.attempt import Attempt
from podium.worker.inventory import ADDRESS, SLOT_DEVICES, cpu_slots, slot_devices
from podium.worker.stop import StopFlag


class Site:
    """A job of two machines that has been dispatched."""

    def __init__(self, root: Path, job: Job) -> None:
        self.root = root
        self.store = MemoryStore()
        self.id = self.store.create(NewJob(project="p", spec=job.spec, classes=job.classes))[0].id
        self.assignment: Assignment = self.store.dispatch(
            self.id, "n1", 0, elsewhere=[Member(node="n:2", slots=(1, 2))]
        )

    def run(self, mark: str) -> None:
        settings = Settings(redis_url="", redis_password=None, artifacts=str(self.root), data_roots=(), leases=Leases())
        artifacts = ArtifactStore(str(self.root))
        Attempt(self.store, artifacts, self.assignment, settings, StopFlag(), threads=1, mark=mark).run()


@pytest.fixture
def site(tmp_path, images, job, monkeypatch) -> Site:
    monkeypatch.delenv(ADDRESS, raising=False)
    monkeypatch.setenv(SLOT_DEVICES, slot_devices(cpu_slots(3)))
    return Site(tmp_path / "artifacts", job(images("train"), resources=Resources(nodes=2, gpus=1)))


def test_a_follower_begins_nothing_and_leaves_when_the_attempt_is_over(site):
    asked = threading.Event()
    rendezvous = site.store.rendezvous

    def watched(assignment: Assignment) -> str:
        asked.set()
        text: str = rendezvous(assignment)
        return text

    site.store.rendezvous = watched
    follower = threading.Thread(target=site.run, args=("podium:abc:n:2:1",))
    follower.start()
    assert asked.wait(60)
    waiting = site.store.get(site.id)
    site.store.cancel(site.id, "enough", force=True)
    follower.join(60)

    assert not follower.is_alive()
    assert State.STARTING is waiting.state
    assert State.CANCELLED is site.store.get(site.id).state


def test_a_machine_that_others_cannot_reach_gives_the_job_back_and_says_what_to_set(site):
    site.run("podium:abc:n1:0")

    back = site.store.get(site.id)
    assert (State.QUEUED, Cause.INTERNAL) == (back.state, back.attempts[0].cause)
    assert back.attempts[0].outcome.startswith("others cannot reach n1 at ''")
    assert back.attempts[0].outcome.endswith("set PODIUM_ADDRESS there")
