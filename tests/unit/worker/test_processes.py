import os
import subprocess
import sys
import tempfile

from podium.worker.processes import folder_prefix, remove_abandoned


def _dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_what_a_dead_process_of_the_same_mark_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own, dead = str(os.getpid()), str(_dead())
    mine = tmp_path / f"{folder_prefix('podium:x:a')}1"
    others = tmp_path / f"{folder_prefix('podium:x:b')}1".replace(own, dead)
    left = tmp_path / f"{folder_prefix('podium:x:a')}2".replace(own, dead)
    strange = tmp_path / f"{folder_prefix('podium:x:a')}3".replace(own, "else")
    for folder in (mine, others, left, strange):
        folder.mkdir()
        (folder / "file").touch()

    remove_abandoned("podium:x:a")

    assert {mine, others, strange} == set(tmp_path.iterdir())
