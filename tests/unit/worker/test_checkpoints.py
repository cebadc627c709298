"""What becomes of a checkpoint whose attempt is fenced out between the disk and the ledger."""

from pathlib import Path

import pytest

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.job import Checkpoint, Job, Node, NodeState, Slot
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Softmax
from podium.jobs.store import Assignment, MemoryStore, NewJob
from podium.worker.checkpoints import Checkpoints

_SPEC = JobSpec(backbone="resnet18", tuning=FullFineTuning(), dataset=ImageFolder(train="/data"), sorter=Softmax())


class Site:
    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.artifacts = ArtifactStore(str(root))
        self.store.heartbeat(Node(id="n", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
        self.job: Job = self.store.create(NewJob(project="p", spec=_SPEC, classes=("a", "b")))[0]
        self.assignment: Assignment = self.store.dispatch(self.job.id, "n", 0)
        self.store.begin(self.assignment)
        self.checkpoints = Checkpoints(self.store, self.artifacts, self.job, self.assignment, {})

    def commit(self) -> Checkpoint:
        return self.checkpoints.commit(1, _write, {}, False)

    def on_disk(self) -> list[str]:
        return [manifest.id for manifest in self.artifacts.manifests(self.job.id)]


def _write(folder: Path) -> None:
    (folder / "model").write_bytes(b"x")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_checkpoint_that_nobody_will_list_does_not_stay_on_the_disk(site: Site) -> None:
    checkpoint = site.commit()
    site.store.recover(site.assignment, "lost")

    with pytest.raises(StaleFenceError):
        site.checkpoints.register(checkpoint)
    assert [] == site.on_disk()


def test_a_checkpoint_of_a_job_that_was_deleted_does_not_stay_on_the_disk(site: Site) -> None:
    checkpoint = site.commit()
    site.store.cancel(site.job.id, "why", force=True)
    site.store.delete(site.job.id)

    with pytest.raises(StaleFenceError):
        site.checkpoints.register(checkpoint)
    assert [] == site.on_disk()


def test_one_that_was_listed_stays_though_its_attempt_never_heard_the_answer(site: Site, monkeypatch) -> None:
    checkpoint = site.commit()
    commit = site.store.commit_checkpoint

    def without_an_answer(assignment: Assignment, one: Checkpoint) -> None:
        commit(assignment, one)
        raise UnavailableError("the answer was lost")

    monkeypatch.setattr(site.store, "commit_checkpoint", without_an_answer)
    with pytest.raises(UnavailableError):
        site.checkpoints.register(checkpoint)
    monkeypatch.undo()
    site.store.recover(site.assignment, "lost")

    with pytest.raises(StaleFenceError):
        site.checkpoints.register(checkpoint)
    assert [checkpoint.id] == site.on_disk()
