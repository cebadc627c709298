"""Who deletes the bytes of what was deleted."""

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.job import Checkpoint
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Archive, MemoryStore, NewJob
from podium.server.dispatcher import Deleter

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


class Site:
    """A ledger in memory, an artifact store, and a clock that is turned."""

    def __init__(self, root: Path) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.artifacts = ArtifactStore(str(root))
        self.store = MemoryStore(clock=self.time, archive=Archive(self.artifacts))
        self.deleter = self.next_leader()

    def time(self) -> datetime:
        return self.now

    def next_leader(self) -> Deleter:
        return Deleter(self.store, self.artifacts, settle=600, clock=self.time)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def ended(self) -> tuple[str, list[Checkpoint]]:
        """A job that has ended, with two checkpoints and everything else that jobs have in the artifact store."""
        assignment = self.store.dispatch(
            self.store.create(NewJob(project="p", spec=SPEC, classes=("a",)))[0].id, "n", 0
        )
        self.store.begin(assignment)
        committed = [self.committed(assignment.job_id, step) for step in (1, 2)]
        for checkpoint in committed:
            self.store.commit_checkpoint(assignment, checkpoint)
        self.store.finish(assignment, State.SUCCEEDED, reason="done")
        self.artifacts.scratch_path(assignment.job_id).mkdir()
        self.store.archive(assignment.job_id)
        return assignment.job_id, committed

    def committed(self, job_id: str, step: int) -> Checkpoint:
        with self.artifacts.stage(job_id, 1) as staging:
            (staging.directory / "model").write_bytes(b"x")
            return staging.commit(fence=1, step=step, spec_digest="d")

    def folders(self) -> set[str]:
        return {path.name for path in (self.artifacts.root / "jobs").iterdir()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_bytes_of_a_deleted_job_go_at_once_and_those_of_others_stay(site: Site) -> None:
    (job_id, _), (other, _) = site.ended(), site.ended()
    features = site.artifacts.cache_path("features", "shared")
    features.mkdir(parents=True)
    site.store.delete(job_id)

    assert 0 == site.deleter.delete()
    assert {other} == site.folders()
    assert features.is_dir()
    assert [job_id] == [one.job_id for one in site.store.deletions()]


def test_what_a_late_attempt_writes_goes_later_and_then_the_deletion_is_concluded(site: Site) -> None:
    job_id, _ = site.ended()
    site.store.delete(job_id)
    site.deleter.delete()
    site.committed(job_id, 3)
    site.later(599)
    assert (0, {job_id}) == (site.deleter.delete(), site.folders())
    site.later(1)

    assert (1, set()) == (site.deleter.delete(), site.folders())
    assert [] == list(site.store.deletions())
    assert 0 == site.deleter.delete()


def test_of_a_checkpoint_its_own_bytes_go_and_no_more(site: Site) -> None:
    job_id, (first, second) = site.ended()
    site.store.delete_checkpoint(first.id)
    site.deleter.delete()

    assert [second.id] == [manifest.id for manifest in site.artifacts.manifests(job_id)]
    assert 1 == len(list(site.artifacts.root.glob("jobs/*/history/*.zip")))
    site.store.delete(job_id)
    site.later(600)
    assert (2, set()) == (site.deleter.delete(), site.folders())


def test_whoever_leads_next_finishes_what_was_cut_short(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, _ = site.ended()
    site.store.delete(job_id)

    def dies(_: object, name: str) -> None:
        (site.artifacts.root / "jobs" / name / "scratch").rmdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(ArtifactStore, "remove_job", dies)
    with pytest.raises(KeyboardInterrupt):
        site.deleter.delete()
    monkeypatch.undo()
    site.next_leader().delete()

    assert set() == site.folders()


@pytest.mark.parametrize("end", [KeyboardInterrupt(), PermissionError(13, "Permission denied")])
def test_a_checkpoint_that_was_moved_aside_and_not_deleted_is_deleted_in_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    job_id, (first, second) = site.ended()
    site.store.delete_checkpoint(first.id)

    def fails(path: object, ignore_errors: bool = False) -> None:
        if not (ignore_errors and isinstance(end, OSError)):
            raise end

    monkeypatch.setattr("shutil.rmtree", fails)
    site.later(600)
    with contextlib.suppress(KeyboardInterrupt):
        site.deleter.delete()
    assert [first.id] == [one.checkpoint_id for one in site.store.deletions()]
    monkeypatch.undo()

    assert 1 == site.next_leader().delete()
    models = (site.artifacts.root / "jobs" / job_id).rglob("model")
    assert [second.id] == [path.parent.name for path in models]


def test_a_storage_that_refuses_one_keeps_none_waiting_and_is_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (bad, _), (good, _) = site.ended(), site.ended()
    for job_id in (bad, good):
        site.store.delete(job_id)
    remove = ArtifactStore.remove_job

    def refuses(artifacts: ArtifactStore, job_id: str) -> None:
        if job_id == bad:
            raise PermissionError(13, "Permission denied")
        remove(artifacts, job_id)

    monkeypatch.setattr(ArtifactStore, "remove_job", refuses)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            site.later(600)
            site.deleter.delete()
    assert [bad] == [one.job_id for one in site.store.deletions()]
    assert 1 == len([record for record in caplog.records if bad in record.getMessage()])
    monkeypatch.undo()

    assert (1, set()) == (site.deleter.delete(), site.folders())


def test_a_job_without_any_bytes_is_deleted_too(site: Site) -> None:
    job_id = site.store.create(NewJob(project="p", spec=SPEC, classes=("a",)))[0].id
    site.store.cancel(job_id, "why")
    site.store.delete(job_id)
    site.later(600)

    assert 1 == site.deleter.delete()
