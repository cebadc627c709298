import signal

import pytest

from podium.jobs.job import Cause
from podium.worker.memory import MemoryWatch, oom_kills


@pytest.fixture
def machine(tmp_path):
    """The files of a Linux machine whose kernel has killed 3 processes for memory, 1 of them in this group."""
    for name, text in {
        "proc/self/cgroup": "1:cpu:/\n0::/system.slice/podium.service\n",
        "proc/vmstat": "nr_free_pages 9\noom_kill 3\n",
        "sys/fs/cgroup/system.slice/podium.service/memory.events": "low 0\noom 1\noom_kill 1\noom_group_kill 0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_groups_own_count_goes_before_the_machines(machine):
    assert 1 == oom_kills(machine)
    (machine / "sys/fs/cgroup/system.slice/podium.service/memory.events").unlink()
    assert 3 == oom_kills(machine)
    (machine / "proc/vmstat").unlink()
    assert 0 == oom_kills(machine)


def test_only_a_sigkill_while_memory_ran_out_is_explained_by_it(machine):
    watch = MemoryWatch(machine)
    assert Cause.INTERNAL is watch.cause(signal.SIGKILL)
    (machine / "sys/fs/cgroup/system.slice/podium.service/memory.events").write_text("oom_kill 2\n")

    assert Cause.OOM_HOST is watch.cause(signal.SIGKILL)
    assert Cause.INTERNAL is watch.cause(signal.SIGSEGV)
    assert Cause.INTERNAL is watch.cause(1 << 8)
