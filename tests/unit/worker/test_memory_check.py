"""Whether a slot has room for a job, as nvidia-smi tells it."""

import stat
import threading

import pytest

from podium.jobs.job import Slot
from podium.worker.inventory import gpu_memory, gpu_slots, versions
from podium.worker.memory_check import MemoryCheck, trouble_of
from podium.worker.noticeboard import Noticeboard

GPU = Slot(index=0, device="GPU-a", model="H100")
OTHER = Slot(index=1, device="GPU-b", model="H100")
GIB = 1 << 30
#: As nvidia-smi answers: for every query the fields that are asked for, a line for each GPU.
ANSWERS = """#!/bin/sh
case "$1" in
*uuid,name,memory.total*) echo "GPU-a, NVIDIA H100 80GB HBM3, 81559"; echo "GPU-b, NVIDIA GH200, [N/A]" ;;
*uuid,memory.free,memory.total*) echo "GPU-a, 69000, 81559"; echo "GPU-b, [N/A], [N/A]" ;;
*uuid,driver_version*) echo "GPU-a, 570.86.15"; echo "GPU-b, 570.86.15" ;;
*) exit 6 ;;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on PATH that does what a script says."""

    def install(script: str) -> None:
        file = tmp_path / "nvidia-smi"
        file.write_text(script)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


@pytest.mark.parametrize(
    ("slot", "memory", "available", "expected"),
    [
        (GPU, {"GPU-a": (80_000, 81_559)}, 0, ""),
        (GPU, {"GPU-a": (69_000, 81_559)}, 0, "12.3 of 79.6 GiB are held by others on GPU-a"),
        (GPU, {"GPU-a": (0, 0)}, 0, ""),
        (GPU, {"GPU-b": (80_000, 81_559)}, 0, "nvidia-smi no longer lists GPU-a"),
        (GPU, None, 0, "nvidia-smi does not answer"),
        (Slot(index=0), None, 2 * GIB, ""),
        (Slot(index=0), None, GIB // 2, "0.5 GiB of memory are available; a job needs 1 to begin"),
    ],
)
def test_what_an_idle_slot_lacks_is_said_in_words(slot, memory, available, expected):
    assert expected == trouble_of(slot, memory, available)


def test_what_nvidia_smi_says_is_read_and_what_it_does_not_know_is_nothing(nvidia_smi):
    nvidia_smi(ANSWERS)

    assert [("GPU-a", 81_559 << 20), ("GPU-b", 0)] == [(slot.device, slot.memory_bytes) for slot in gpu_slots("all")]
    assert {"GPU-a": (69_000, 81_559), "GPU-b": (0, 0)} == gpu_memory()
    assert "570.86.15" == versions()["driver"]
    assert {"python", "torch"} < versions().keys()


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9", "#!/bin/sh\necho no devices were found"])
def test_an_nvidia_smi_that_fails_is_no_gpu_and_says_nothing_of_memory(nvidia_smi, script):
    nvidia_smi(script)

    assert () == gpu_slots("all")
    assert gpu_memory() is None
    assert "driver" not in versions()


class Machine:
    """Two GPUs, half of the first one held by a stranger, in a time of its own."""

    def __init__(self, folder) -> None:
        self.now = 0.0
        self.memory = {"GPU-a": (500, 1000), "GPU-b": (1000, 1000)}
        self.board = Noticeboard(folder)
        self.memory_check = MemoryCheck((GPU, OTHER), self.board, gpus=lambda: self.memory, clock=lambda: self.now)

    def look(self, times: int = 2) -> dict[int, str]:
        for _ in range(times):
            self.memory_check.look()
        return dict(self.memory_check.troubles())


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_trouble_counts_when_it_is_seen_twice_and_ends_with_its_cause(machine):
    assert {} == machine.look(1)
    assert [0] == list(machine.look(1))
    assert "held by others on GPU-a" in machine.board.trouble(0)
    assert "" == machine.board.trouble(1)

    machine.memory["GPU-a"] = (990, 1000)
    assert {} == machine.look(1)
    assert "" == machine.board.trouble(0)


def test_what_an_attempt_of_ours_holds_on_any_of_its_slots_is_no_trouble(machine):
    machine.memory["GPU-b"] = (0, 1000)
    machine.board.occupy(1, (1, 0))
    assert {} == machine.look()

    machine.board.vacate(1)
    assert [0, 1] == sorted(machine.look())


def test_a_silent_nvidia_smi_is_trouble_for_idle_gpus(machine):
    machine.memory["GPU-a"] = (1000, 1000)
    machine.board.occupy(1, (1,))
    machine.look()
    machine.now = 61.0

    assert {0: "nvidia-smi has not answered for a minute"} == machine.memory_check.troubles()


def test_one_look_that_fails_is_not_the_last_one(machine, monkeypatch):
    monkeypatch.setattr("podium.worker.memory_check._INTERVAL", 0.01)
    looks, looked_again = [], threading.Event()

    def gpus():
        looks.append(1)
        if len(looks) == 1:
            raise OSError("no space left on device")
        looked_again.set()
        threading.Event().wait()  # the thread has no other end

    MemoryCheck((GPU, OTHER), machine.board, gpus=gpus).start()

    assert looked_again.wait(timeout=30)
