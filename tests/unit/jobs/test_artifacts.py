"""A checkpoint is there whole or not at all, and readers trust its manifest only."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import DataLossError, NotFoundError, OutOfRangeError
from podium.jobs.job import Checkpoint

NOW = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC)
JOB = "job-aaaa"


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), clock=lambda: NOW)


def save(
    artifacts: ArtifactStore, step: int, *, fence: int = 1, attempt: int = 1, weights: bytes = b"weights" * 1000
) -> Checkpoint:
    """A committed checkpoint of two files."""
    with artifacts.stage(JOB, attempt) as staging:
        (staging.directory / "model.safetensors").write_bytes(weights)
        (staging.directory / "optimizer.pt").write_bytes(b"%d" % step)
        return staging.commit(
            fence=fence, step=step, spec_digest="d" * 64, metrics={"loss": 0.5}, best=True, versions={"torch": "2.15"}
        )


def directory_of(artifacts: ArtifactStore, checkpoint: Checkpoint) -> Path:
    return artifacts.root / "jobs" / JOB / "checkpoints" / checkpoint.id


class TestCommit:
    def test_a_committed_checkpoint_says_everything_about_itself(self, artifacts: ArtifactStore) -> None:
        checkpoint = save(artifacts, 7, fence=3, attempt=2)
        (manifest,) = artifacts.manifests(JOB)

        assert checkpoint == manifest.checkpoint
        assert (JOB, 2, 7, {"loss": 0.5}, True, NOW) == (
            checkpoint.job_id,
            checkpoint.attempt,
            checkpoint.step,
            checkpoint.metrics,
            checkpoint.best,
            checkpoint.create_time,
        )
        assert (3, "d" * 64, {"torch": "2.15"}) == (manifest.fence, manifest.spec_digest, manifest.versions)
        assert [("model.safetensors", 7000), ("optimizer.pt", 1)] == [(file.name, file.size) for file in manifest.files]
        assert hashlib.sha256(b"weights" * 1000).hexdigest() == manifest.files[0].sha256
        assert manifest == artifacts.manifest(JOB, checkpoint.id)
        artifacts.verify(manifest)

    def test_nothing_is_listed_before_the_commit_nor_left_without_it(self, artifacts: ArtifactStore) -> None:
        with artifacts.stage(JOB, 1) as staging:
            (staging.directory / "model.safetensors").write_bytes(b"half")
            assert [] == artifacts.manifests(JOB)

        assert [] == artifacts.manifests(JOB)
        assert [] == [path for path in artifacts.root.rglob("*") if path.is_file()]

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda directory: None,
            lambda directory: (directory / "folder").mkdir(),
            lambda directory: (directory / "link").symlink_to("/etc/passwd"),
            lambda directory: (directory / "MANIFEST.json").write_text("{}"),
            lambda directory: (directory / "a b").write_text("x"),
            lambda directory: (directory / ".hidden").write_text("x"),
        ],
    )
    def test_what_cannot_be_a_checkpoint_is_refused(
        self, artifacts: ArtifactStore, spoil: Callable[[Path], object]
    ) -> None:
        with artifacts.stage(JOB, 1) as staging:
            spoil(staging.directory)
            with pytest.raises(ValueError, match="file"):
                staging.commit(fence=1, step=1, spec_digest="")
        assert [] == artifacts.manifests(JOB)

    def test_a_full_disk_leaves_nothing_visible(
        self, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                save(artifacts, 1)
        assert [] == artifacts.manifests(JOB)
        assert [] == [path for path in artifacts.root.rglob("*") if path.is_file()]

    @pytest.mark.parametrize("moment", ["files", "manifest", "rename"])
    def test_a_writer_killed_in_the_middle_leaves_nothing_that_is_listed(
        self, artifacts: ArtifactStore, moment: str
    ) -> None:
        kept = save(artifacts, 1)
        process = subprocess.run(
            [sys.executable, "-c", KILLED, str(artifacts.root), JOB, moment], timeout=60, check=False
        )

        assert -signal.SIGKILL == process.returncode
        assert [kept.id] == [manifest.id for manifest in artifacts.manifests(JOB)]
        assert list((artifacts.root / "jobs" / JOB / "tmp").iterdir())
        assert artifacts.sweep_staging(JOB) == 1
        assert [] == list((artifacts.root / "jobs" / JOB / "tmp").iterdir())
        assert [kept.id] == [manifest.id for manifest in artifacts.manifests(JOB)]

    def test_a_writer_killed_right_after_its_commit_has_committed(self, artifacts: ArtifactStore) -> None:
        process = subprocess.run(
            [sys.executable, "-c", KILLED, str(artifacts.root), JOB, "after"], timeout=60, check=False
        )

        assert -signal.SIGKILL == process.returncode
        (manifest,) = artifacts.manifests(JOB)
        artifacts.verify(manifest)


#: Saves a checkpoint and dies by SIGKILL at a moment of its choice.
KILLED = """
import os, pathlib, signal, sys
from podium.jobs.artifacts import ArtifactStore

root, job, moment = sys.argv[1:]
die = lambda *ignored, **too: os.kill(os.getpid(), signal.SIGKILL)
with ArtifactStore(root).stage(job, 1) as staging:
    (staging.directory / "model.safetensors").write_bytes(b"x" * 100_000)
    if moment == "files":
        die()
    if moment == "manifest":
        pathlib.Path.write_text = die
    if moment == "rename":
        pathlib.Path.rename = die
    staging.commit(fence=1, step=9, spec_digest="")
    die()
"""


class TestReading:
    def test_the_newest_is_the_latest_fences_latest_step(self, artifacts: ArtifactStore) -> None:
        saved = [save(artifacts, step, fence=fence) for fence, step in ((1, 10), (1, 30), (3, 20), (1, 20))]

        assert [saved[2].id, saved[1].id, saved[3].id, saved[0].id] == [
            manifest.id for manifest in artifacts.manifests(JOB)
        ]

    def test_a_job_without_checkpoints_has_none(self, artifacts: ArtifactStore) -> None:
        assert [] == artifacts.manifests("job-none")
        assert artifacts.sweep_staging("job-none") == 0

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "a link"])
    def test_a_damaged_file_is_named_and_the_checkpoint_before_it_is_whole(
        self, artifacts: ArtifactStore, damage: str
    ) -> None:
        older, newer = save(artifacts, 1), save(artifacts, 2)
        file = directory_of(artifacts, newer) / "model.safetensors"
        whole = file.read_bytes()
        if damage == "truncated":
            file.write_bytes(whole[:-1])
        elif damage == "flipped":
            file.write_bytes(b"W" + whole[1:])
        else:
            file.unlink()
            if damage == "a link":
                file.symlink_to(directory_of(artifacts, older) / "model.safetensors")

        with pytest.raises(DataLossError, match=r"model\.safetensors") as caught:
            artifacts.verify(artifacts.manifest(JOB, newer.id))
        assert caught.value.metadata == {"checkpoint_id": newer.id, "file": "model.safetensors"}
        artifacts.verify(artifacts.manifest(JOB, older.id))

    @pytest.mark.parametrize(
        "spoil",
        [
            {"format": 2},
            {"job_id": "job-bbbb"},
            {"id": "ckpt-other"},
            {"step": "many"},
            {"files": [{"name": "../../secret", "size": 1, "sha256": "0" * 64}]},
            {"files": [{"name": "/etc/passwd", "size": 1, "sha256": "0" * 64}]},
            {"files": [{"name": "a", "size": -1, "sha256": "0" * 64}]},
            {"files": [{"name": "a", "size": 1, "sha256": "0"}]},
            {"files": [{"name": "a", "size": 1, "sha256": "0" * 64}] * 2},
            {"files": None},
            {"metrics": []},
            {"created": "yesterday"},
        ],
        ids=str,
    )
    def test_a_manifest_that_is_none_makes_no_checkpoint(
        self, artifacts: ArtifactStore, spoil: dict[str, object]
    ) -> None:
        kept, spoiled = save(artifacts, 1), save(artifacts, 2)
        path = directory_of(artifacts, spoiled) / "MANIFEST.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | spoil))

        assert [kept.id] == [manifest.id for manifest in artifacts.manifests(JOB)]
        with pytest.raises(DataLossError, match="not a manifest"):
            artifacts.manifest(JOB, spoiled.id)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, " " * 2_000_000])
    def test_a_manifest_that_is_not_even_json_makes_no_checkpoint(self, artifacts: ArtifactStore, text: str) -> None:
        (directory_of(artifacts, save(artifacts, 1)) / "MANIFEST.json").write_text(text)
        assert [] == artifacts.manifests(JOB)

    def test_strangers_in_the_folder_are_passed_over(self, artifacts: ArtifactStore) -> None:
        kept = save(artifacts, 1)
        folder = directory_of(artifacts, kept).parent
        (folder / "notes.txt").write_text("x")
        (folder / "ckpt-empty").mkdir()

        assert [kept.id] == [manifest.id for manifest in artifacts.manifests(JOB)]

    def test_a_file_is_read_from_any_offset(self, artifacts: ArtifactStore) -> None:
        checkpoint = save(artifacts, 1, weights=b"0123456789")
        for offset, rest in ((0, b"0123456789"), (4, b"456789"), (10, b"")):
            with artifacts.open_file(JOB, checkpoint.id, "model.safetensors", offset) as file:
                assert rest == file.read()
        for offset in (-1, 11):
            with pytest.raises(OutOfRangeError):
                artifacts.open_file(JOB, checkpoint.id, "model.safetensors", offset)

    def test_a_file_that_became_shorter_is_not_served(self, artifacts: ArtifactStore) -> None:
        checkpoint = save(artifacts, 1)
        os.truncate(directory_of(artifacts, checkpoint) / "model.safetensors", 10)
        with pytest.raises(DataLossError, match="10 bytes"):
            artifacts.open_file(JOB, checkpoint.id, "model.safetensors")

    @pytest.mark.parametrize(
        "name", ["../optimizer.pt", "/etc/passwd", "MANIFEST.json", "", ".", "..", "a/b", "model.safetensors\0", "none"]
    )
    def test_only_what_the_manifest_names_is_served(self, artifacts: ArtifactStore, name: str) -> None:
        checkpoint = save(artifacts, 1)
        with pytest.raises(NotFoundError) as caught:
            artifacts.open_file(JOB, checkpoint.id, name)
        assert caught.value.reason == "FILE_NOT_FOUND"

    @pytest.mark.parametrize("checkpoint_id", ["ckpt-none", "../checkpoints", "..", "", "/", "a/../b"])
    def test_a_checkpoint_id_is_no_path(self, artifacts: ArtifactStore, checkpoint_id: str) -> None:
        save(artifacts, 1)
        with pytest.raises(NotFoundError) as caught:
            artifacts.open_file(JOB, checkpoint_id, "model.safetensors")
        assert caught.value.reason == "CHECKPOINT_NOT_FOUND"

    @pytest.mark.parametrize("job_id", ["../other", "..", "", "a/b"])
    def test_a_job_id_is_no_path(self, artifacts: ArtifactStore, job_id: str) -> None:
        with pytest.raises(ValueError, match="plain name"):
            artifacts.manifests(job_id)


class TestRemoval:
    def test_a_removed_checkpoint_is_gone_and_removing_it_again_is_no_error(self, artifacts: ArtifactStore) -> None:
        kept, removed = save(artifacts, 1), save(artifacts, 2)
        for _ in range(2):
            artifacts.remove(JOB, removed.id)

        assert [kept.id] == [manifest.id for manifest in artifacts.manifests(JOB)]
        assert not directory_of(artifacts, removed).exists()

    def test_a_new_attempt_sweeps_what_earlier_ones_left_but_not_its_own(self, artifacts: ArtifactStore) -> None:
        stagings = [artifacts.stage(JOB, attempt) for attempt in (1, 2, 3)]
        for staging in stagings:
            staging.__enter__()

        assert artifacts.sweep_staging(JOB, before_attempt=3) == 2
        assert [False, False, True] == [staging.directory.exists() for staging in stagings]


class TestRoot:
    def test_a_directory_or_its_url(self, tmp_path: Path) -> None:
        assert Path("/a b/c") == ArtifactStore("file:///a%20b/c").root
        assert Path("/a") == ArtifactStore("file://localhost/a").root
        assert tmp_path == ArtifactStore(str(tmp_path)).root
        assert ArtifactStore("relative").root.is_absolute()

    @pytest.mark.parametrize("root", ["s3://bucket/x", "gs://bucket", "https://host/x"])
    def test_other_stores_are_not_built_yet(self, root: str) -> None:
        with pytest.raises(ValueError, match="not built yet"):
            ArtifactStore(root)

    def test_another_machines_directory_is_refused(self) -> None:
        with pytest.raises(ValueError, match="file:///absolute/path"):
            ArtifactStore("file://otherhost/a")


class TestCache:
    @pytest.mark.parametrize(("kind", "digest"), [("..", "a"), ("a", "../b"), ("a/b", "c"), ("", "a")])
    def test_a_cache_key_is_no_path(self, artifacts: ArtifactStore, kind: str, digest: str) -> None:
        with pytest.raises(ValueError, match="plain name"):
            artifacts.cache_path(kind, digest)
