import os
import signal
import subprocess
import sys
import tempfile

import pytest

from podium.jobs.settings import Settings
from podium.jobs.store import Leases
from podium.worker.processes import describe_exit, folder_prefix, mark, remove_abandoned, wait_status


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


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (signal.SIGRTMIN, "SIGRTMIN"), (signal.SIGRTMIN + 3, "SIGRTMIN+3")]
)
def test_a_process_that_a_signal_killed_is_described_whatever_the_signal(number, name):
    process = subprocess.Popen([sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"])

    assert f"was killed by signal {int(number)} ({name})" == describe_exit(wait_status(process.wait(60)))


def test_every_signal_that_there_is_has_a_name():
    for number in signal.valid_signals():
        assert describe_exit(wait_status(-number)).startswith(f"was killed by signal {int(number)} (SIG")


def test_what_stands_in_ps_says_nothing_of_a_password_and_tells_deployments_apart():
    def of(url: str) -> str:
        settings = Settings(redis_url=url, redis_password=None, artifacts="/a", data_roots=(), leases=Leases())
        return mark(settings, "n1")

    assert of("redis://me:one@redis/0") == of("redis://me:another@redis/0") == of("redis://redis/0")
    assert of("unix:///s?db=1&password=one") == of("unix:///s?db=1")
    assert 4 == len({of("redis://redis/0"), of("redis://redis/1"), of("redis://other/0"), of("unix:///s?db=1")})
