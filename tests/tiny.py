"""A job that trains in seconds on a CPU: a tiny backbone, and classes that are colours, so that it learns them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from podium.jobs.spec import (
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


def tiny_images(root: Path, *, classes: int = 3, each: int = 8, size: tuple[int, int] = (32, 32), seed: int = 0) -> str:
    """A folder of class folders; `size` is height and width in pixels."""
    rng = np.random.default_rng(seed)
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 120, (*size, 3), dtype=np.uint8)
            pixels[..., label % 3] += 130
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return str(root)


def tiny_spec(train: str, **changes: object) -> JobSpec:
    """Its spec; keywords replace parts of it."""
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
        "batch_size": 6,
        "evaluation": Evaluation(top_k=(1, 2)),
        "checkpoints": CheckpointPolicy(every_steps=2),
    }
    return JobSpec(**parts | changes)
