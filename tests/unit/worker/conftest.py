from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from podium.jobs.datasets import scan_classes
from podium.jobs.job import Job
from podium.jobs.spec import AdamW
from podium.jobs.states import State
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
