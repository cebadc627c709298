from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from podium.jobs.datasets import scan_classes
from podium.jobs.job import Job
from podium.jobs.spec import (
    AdamW,
    CheckpointPolicy,
    Evaluation,
    FullFineTuning,
    ImageFolder,
    Interpolation,
    JobSpec,
    Preprocessing,
    Resize,
    Subset,
)
from podium.jobs.states import State


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
        rng = np.random.default_rng(len(name))
        for label in range(classes):
            folder = tmp_path / name / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(each):
                pixels = rng.integers(0, 120, (side, side + 8, 3), dtype=np.uint8)
                pixels[..., label % 3] += 130
                Image.fromarray(pixels).save(folder / f"{number}.png")
        return str(tmp_path / name)

    return make


@pytest.fixture
def job() -> Callable[..., Job]:
    """A job on a tiny backbone; keywords replace parts of the spec."""

    def make(train: str, **changes: object) -> Job:
        parts: dict[str, Any] = {
            "backbone": "timm/test_resnet",
            "tuning": FullFineTuning(),
            "dataset": ImageFolder(train=train, val_fraction=0.25),
            "preprocessing": Preprocessing(
                image_size=32,
                resize=Resize.SQUASH,
                crop_fraction=1.0,
                interpolation=Interpolation.BILINEAR,
                mean=(0.5, 0.5, 0.5),
                std=(0.25, 0.25, 0.25),
            ),
            "k": {1: 0.5, 2: 0.5},
            "m": 3,
            "sorter": Subset(),
            "optimizer": AdamW(learning_rate=3e-3),
            "epochs": 2,
            "batch_size": 6,
            "evaluation": Evaluation(top_k=(1, 2)),
            "checkpoints": CheckpointPolicy(every_steps=2),
        }
        spec = JobSpec(**parts | changes)
        return Job(id="job-1", project="p", spec=spec, state=State.RUNNING, classes=tuple(scan_classes(train)))

    return make
