"""Who clears up after jobs that have ended."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import DataLossError
from podium.jobs.job import Checkpoint, Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.store import Archive, MemoryStore, NewJob
from podium.server.dispatcher import Archiver

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


class Site:
    """A ledger in memory, an artifact store, and a clock that is turned."""

    def __init__(self, root: Path) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.artifacts = ArtifactStore(str(root))
        self.store = MemoryStore(clock=self.time, archive=Archive(self.artifacts))
        self.archiver = Archiver(self.store, self.artifacts, after=60, clock=self.time)

    def time(self) -> datetime:
        return self.now

    def ended(self) -> str:
        job_id = self.store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))[0].id
        return self.store.cancel(job_id, "why").id

    def committed(self, job_id: str) -> Checkpoint:
        with self.artifacts.stage(job_id, 1) as staging:
            (staging.directory / "model").write_bytes(b"x")
            return staging.commit(fence=1, step=1, spec_digest="d")

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def archived(self) -> set[str]:
        return {path.parent.parent.name for path in self.artifacts.root.glob("jobs/*/history/*.zip")}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_job_is_archived_a_minute_after_its_end_and_not_before(site: Site) -> None:
    job_id = site.ended()
    site.later(60)
    assert 0 == site.archiver.archive()
    site.later(1)

    assert 1 == site.archiver.archive()
    assert {job_id} == site.archived()
    assert 0 == site.archiver.archive()
    assert 2 == len(site.store.events(job_id, after=0).events)


def test_what_its_attempts_left_behind_is_gone_and_its_checkpoints_are_not(site: Site) -> None:
    job_id = site.store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))[0].id
    site.store.heartbeat(Node(id="n", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
    assignment = site.store.dispatch(job_id, "n", 0)
    site.store.begin(assignment)
    kept, unlisted = site.committed(job_id), site.committed(job_id)
    site.store.commit_checkpoint(assignment, kept)
    site.store.cancel(job_id, "why", force=True)
    scratch = site.artifacts.scratch_path(job_id)
    killed = scratch.parent / "tmp" / "1-dead"
    for folder in (scratch, killed):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    site.later(61)
    site.archiver.archive()

    assert (False, False) == (scratch.exists(), killed.exists())
    assert [kept.id] == [manifest.id for manifest in site.artifacts.manifests(job_id)] != [unlisted.id]


def test_a_job_that_cannot_be_archived_keeps_none_waiting_is_named_once_and_tried_again_later(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = site.ended(), site.ended()
    archive, asked = site.store.archive, []

    def refusing(job_id: str) -> None:
        asked.append(job_id)
        if job_id == bad:
            raise DataLossError("an event is gone")
        archive(job_id)

    monkeypatch.setattr(site.store, "archive", refusing)
    site.later(61)

    assert [1, 0] == [site.archiver.archive(), site.archiver.archive()]
    assert sorted([bad, good]) == sorted(asked)
    assert {good} == site.archived()
    site.later(600)
    assert 0 == site.archiver.archive()
    assert 1 == caplog.text.count(bad)

    monkeypatch.undo()
    site.later(600)
    assert 1 == site.archiver.archive()
    assert {good, bad} == site.archived()


def test_a_jobs_folder_that_is_none_keeps_no_other_job_waiting(site: Site) -> None:
    bad, good = site.ended(), site.ended()
    folder = site.artifacts.root / "jobs" / bad
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("no folder")
    site.later(61)
    assert 1 == site.archiver.archive()
    assert {good} == site.archived()

    folder.unlink()
    site.later(600)
    assert 1 == site.archiver.archive()


def test_a_full_storage_loses_nothing_and_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {site.ended(), site.ended()}
    site.later(61)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ArtifactStore, "settle", staticmethod(full))
    with pytest.raises(OSError, match="No space"):
        site.archiver.archive()
    monkeypatch.undo()
    assert 2 == site.archiver.archive()
    assert ids == site.archived()
