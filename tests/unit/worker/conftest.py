import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from podium.jobs.datasets import scan_classes
from podium.jobs.job import Job
from podium.jobs.spec import AdamW
from podium.jobs.states import State
from podium.worker.pulse import FOLDER
from tests.tiny import tiny_images, tiny_spec


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., str]:
    """Folders of class folders; each class is a colour, so that even a tiny model learns it."""

    def make(name: str, *, classes: int = 3, each: int = 8, side: int = 32) -> str:
        return tiny_images(tmp_path / name, classes=classes, each=each, size=(side, side + 8), seed=len(name))

    return make


@pytest.fixture
def job() -> Callable[..., Job]:
    """A job on a tiny backbone; keywords replace parts of the spec."""

    def make(train: str, **changes: object) -> Job:
        recipe = {"optimizer": AdamW(learning_rate=3e-3), "epochs": 2}
        spec = tiny_spec(train, **recipe | changes)
        return Job(id="job-1", project="p", spec=spec, state=State.RUNNING, classes=tuple(scan_classes(train)))

    return make


@pytest.fixture
def hanging(tmp_path: Path) -> "Iterator[Callable[..., subprocess.Popen[bytes]]]":
    """Starts a process of an attempt that says where it hangs, and returns when it can be asked.

    Its code, in which it hangs, prints a line when that is so; its folder is `tmp_path` unless it is named.
    """
    started = []

    def start(
        name: str, code: str = "print(flush=True); input()", folder: Path = tmp_path
    ) -> "subprocess.Popen[bytes]":
        show = f"from podium.worker.stacks import show_on_signal; show_on_signal({name!r})\n"
        process = subprocess.Popen(
            [sys.executable, "-c", show + code],
            env=os.environ | {FOLDER: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        with process:  # closes the pipes and waits
            process.kill()
