"""An epoch of a head on cached features against one that runs the backbone, an EfficientNet-Lite0 at 224 px.

The head is trained by the worker's own learner and steps. The backbone's epoch is what the features cost (the frozen
model alone, in evaluation mode, on images that are ready) and the head's own epoch on top.
"""

import math
import statistics
import time

import timm
import torch
from PIL import Image

from benchmarks.rows import Row, ratios, turns
from podium.jobs.spec import AdamW, ImageFolder, JobSpec, LinearHead, OddEven
from podium.worker.fit.data import Split, shuffled
from podium.worker.fit.learners import HeadLearner
from podium.worker.fit.optim import optimizer
from podium.worker.fit.step import Stepper
from podium.worker.fit.world import alone

_IMAGES, _BATCH, _SIDE, _CLASSES = 2560, 128, 224, 81
_SHOWN = 64
"""Images that the backbone is run on; more of them would only take longer."""
_STEPS = _IMAGES // _BATCH


def rows(device: torch.device, count: int) -> list[Row]:
    """Epochs a second, medians of so many turns."""
    backbone = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(device)
    images = torch.randn(_SHOWN, 3, _SIDE, _SIDE, device=device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        features = backbone(images[:1]).shape[1]
    learner, stepper = _head(features, device)
    done = 0

    def epoch() -> float:
        nonlocal done
        batches = list(shuffled(_IMAGES, 0, done).view(_STEPS, _BATCH))
        start = time.perf_counter()
        for batch in learner.training(done, batches):
            stepper.step(done, [batch], _BATCH, None)
        _wait(device)
        done += 1
        return 1 / (time.perf_counter() - start)

    def backbone_epoch() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            backbone(images)
        _wait(device)
        return 1 / ((time.perf_counter() - start) * _IMAGES / _SHOWN + 1 / epoch())

    ours, peers = turns(count, epoch, backbone_epoch)
    ratio, spread = ratios(ours, peers)
    what = f"head of {_CLASSES} classes, {_IMAGES} images: cached features against the backbone every time, epochs/s"
    return [
        Row(
            what=what,
            ours=f"{statistics.median(ours):.2f}",
            peer=f"{statistics.median(peers):.4f}",
            ratio=ratio,
            bar=">= 100",
            spread=spread,
        )
    ]


def _head(features: int, device: torch.device) -> tuple[HeadLearner, Stepper]:
    labels = torch.arange(_IMAGES) % _CLASSES
    split = Split(images=_Names(), positions=torch.arange(_IMAGES), labels=labels, classes=_CLASSES)
    spec = JobSpec(
        backbone="tf_efficientnet_lite0",
        tuning=LinearHead(),
        dataset=ImageFolder(train="/"),
        k={1: 0.5, 5: 0.5},
        m=16,
        sorter=OddEven(),
        optimizer=AdamW(),
        batch_size=_BATCH,
    )
    learner = HeadLearner(
        {},
        "classifier",
        {"train": split},
        {"train": torch.randn(_IMAGES, features)},
        standardize=True,
        classes=_CLASSES,
        device=device,
    )
    return learner, Stepper(spec, learner, optimizer(spec, learner.module), alone(device), _STEPS)


class _Names:
    """A source whose images nobody asks for."""

    digest = ""

    def __len__(self) -> int:
        return _IMAGES

    def image(self, place: int, *, at_least: float = math.inf) -> Image.Image:
        raise NotImplementedError  # the protocol wants it; only digest and names are measured

    def name(self, place: int) -> str:
        return str(place)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
