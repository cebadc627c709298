"""One attempt's work, from the job to the end of its training."""

from dataclasses import asdict
from enum import Enum
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from podium.jobs.job import Job
from podium.jobs.spec import JobSpec, LinearHead
from podium.worker.fit import backbones, weights
from podium.worker.fit.backbones import Backbone
from podium.worker.fit.data import Split, open_splits
from podium.worker.fit.features import Extractor, Recipe, linear_classifier
from podium.worker.fit.learners import FullLearner, HeadLearner, Learner
from podium.worker.fit.loop import Training
from podium.worker.job_context import JobContext


def choose_device() -> torch.device:
    """The GPU of this slot, the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(job: Job, context: JobContext, *, device: torch.device, threads: int) -> None:
    """Does a job: prepares, trains, tests.

    Args:
        job: the job, its spec resolved.
        context: the line to the job.
        device: where to compute.
        threads: how many threads may decode images.

    Raises:
        Stopped: the attempt is to end before the job does.
        FitError: the job cannot go on; so may DatasetError and torch.OutOfMemoryError say. See `describe`.
    """
    spec = job.spec
    _be_deterministic()
    torch.manual_seed(spec.seed & (2**63 - 1))
    dataset = open_splits(spec.dataset, job.classes, spec.seed)
    splits = {"train": dataset.train, "val": dataset.val} | ({"test": dataset.test} if dataset.test else {})
    context.log(", ".join(f"{name}: {len(split)} images" for name, split in splits.items()) + f", on {device}")

    backbone = backbones.resolve(spec.backbone)
    model = backbone.build(len(job.classes))
    backbones.check_input(model, spec.preprocessing.image_size or 0, len(job.classes))
    source = weights.load(model, backbone, spec.weights, context)
    context.log(f"backbone {backbone.library}/{backbone.name}, weights {source.name} {source.sha256[:12]}".rstrip())

    learner = _learner(job, model, backbone, source, splits, context, device=device, threads=threads)
    Training(spec, learner, context, device, _config(spec, backbone, source, job.classes)).run()


def _be_deterministic() -> None:
    # For bit-identical resumption; the process's environment has CUBLAS_WORKSPACE_CONFIG for the same reason.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def _learner(
    job: Job,
    model: nn.Module,
    backbone: Backbone,
    source: weights.Source,
    splits: dict[str, Split],
    context: JobContext,
    *,
    device: torch.device,
    threads: int,
) -> Learner:
    spec = job.spec
    if not isinstance(spec.tuning, LinearHead):
        return FullLearner(
            model, splits, spec.preprocessing, spec.augmentation, seed=spec.seed, threads=threads, device=device
        )
    side = spec.preprocessing.image_size or 0
    classifier, _ = linear_classifier(model, backbone, torch.rand(1, 3, side, side))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    features = _features(spec, model, classifier, backbone, source, splits, context, device=device, threads=threads)
    torch.manual_seed(spec.seed & (2**63 - 1))  # the new head does not depend on what was cached
    standardize, classes = spec.tuning.standardize, len(job.classes)
    return HeadLearner(state, classifier, splits, features, standardize=standardize, classes=classes, device=device)


def _features(
    spec: JobSpec,
    model: nn.Module,
    classifier: str,
    backbone: Backbone,
    source: weights.Source,
    splits: dict[str, Split],
    context: JobContext,
    *,
    device: torch.device,
    threads: int,
) -> dict[str, torch.Tensor]:
    recipe = Recipe(
        backbone=backbone,
        weights=source.sha256 or f"random {spec.seed}",
        preprocessing=spec.preprocessing,
        precision=spec.precision,
        device=device.type,
    )
    extractor = Extractor(model, classifier, recipe, device=device, threads=threads, context=context)
    # Train and val may be parts of one index, whose features are computed once.
    indices = {split.index.digest: split.index for split in splits.values()}
    rows = dict(zip(indices, extractor.features(list(indices.values())), strict=True))
    return {name: rows[split.index.digest][split.positions] for name, split in splits.items()}


def _config(spec: JobSpec, backbone: Backbone, source: weights.Source, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "library": backbone.library,
        "model": backbone.name,
        "classes": list(classes),
        "preprocessing": {
            name: value.name.lower() if isinstance(value, Enum) else value
            for name, value in asdict(spec.preprocessing).items()
        },
        "weights": asdict(source),
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__},
    }
