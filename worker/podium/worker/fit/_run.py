"""One attempt's work, from the job to the end of its training."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from podium.jobs.events import Level
from podium.jobs.job import Job
from podium.jobs.spec import LinearHead
from podium.worker.fit import backbones, weights
from podium.worker.fit.backbones import Backbone
from podium.worker.fit.data import Split, open_splits
from podium.worker.fit.features import Extractor, Recipe, linear_classifier
from podium.worker.fit.learners import FullLearner, HeadLearner, Learner
from podium.worker.fit.loop import Training
from podium.worker.fit.world import World
from podium.worker.job_context import JobContext


def choose_device() -> torch.device:
    """The GPU of this slot, the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(job: Job, context: JobContext, *, device: torch.device, threads: int, world: World | None = None) -> None:
    """Does a job: prepares, trains, tests.

    Args:
        job: the job, its spec resolved.
        context: the line to the job.
        device: where to compute.
        threads: how many threads may decode images.
        world: the ranks that do this job together, each of which calls; None: this one alone.

    Raises:
        Stopped: the attempt is to end before the job does.
        FitError: the job cannot go on; so may DatasetError and torch.OutOfMemoryError say. See `describe`.
    """
    spec = job.spec
    if device.type == "cpu" and os.environ.get("CUDA_VISIBLE_DEVICES"):
        context.log(
            "torch cannot use this slot's GPU, so the CPU trains; install a build of torch for its driver, "
            "or start the worker with --cpu-slots",
            Level.WARNING,
        )
    _be_deterministic()
    _seed(spec.seed)
    dataset = open_splits(spec.dataset, job.classes, spec.seed)
    splits = {"train": dataset.train, "val": dataset.val} | ({"test": dataset.test} if dataset.test else {})
    context.log(", ".join(f"{name}: {len(split)} images" for name, split in splits.items()) + f", on {device}")

    backbone = backbones.resolve(spec.backbone)
    model = backbone.build(len(job.classes))
    backbones.check_input(model, spec.preprocessing.image_size or 0, len(job.classes))
    source = weights.load(model, backbone, spec.weights, context)
    context.log(f"backbone {backbone.library}/{backbone.name}, weights {source.name} {source.sha256[:12]}".rstrip())

    ground = _Ground(job=job, context=context, device=device, threads=threads, backbone=backbone, source=source)
    learner = _head(ground, model, splits) if isinstance(spec.tuning, LinearHead) else _full(ground, model, splits)
    Training(spec, learner, context, device, _config(ground, splits)).run()


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What both kinds of learner start from."""

    job: Job
    context: JobContext
    device: torch.device
    threads: int
    backbone: Backbone
    source: weights.Source


def _seed(seed: int) -> None:
    torch.manual_seed(seed & (2**63 - 1))


def _be_deterministic() -> None:
    # For bit-identical resumption; the process's environment has CUBLAS_WORKSPACE_CONFIG for the same reason.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def _full(ground: _Ground, model: nn.Module, splits: Mapping[str, Split]) -> Learner:
    spec = ground.job.spec
    return FullLearner(
        model,
        splits,
        spec.preprocessing,
        spec.augmentation,
        seed=spec.seed,
        threads=ground.threads,
        device=ground.device,
    )


def _head(ground: _Ground, model: nn.Module, splits: Mapping[str, Split]) -> Learner:
    spec = ground.job.spec
    assert isinstance(spec.tuning, LinearHead)
    if ground.device.type == "cpu":
        # A head's tensors are small: threads that share an operation would mostly wait for one another.
        torch.set_num_threads(1)
    side = spec.preprocessing.image_size or 0
    classifier, _ = linear_classifier(model, ground.backbone, torch.rand(1, 3, side, side))
    features = _features(ground, model, classifier, splits)
    _seed(spec.seed)  # the new head does not depend on what was cached
    return HeadLearner(
        dict(model.state_dict()),
        classifier,
        splits,
        features,
        standardize=spec.tuning.standardize,
        classes=len(ground.job.classes),
        device=ground.device,
    )


def _features(
    ground: _Ground, model: nn.Module, classifier: str, splits: Mapping[str, Split]
) -> dict[str, torch.Tensor]:
    spec = ground.job.spec
    recipe = Recipe(
        backbone=ground.backbone,
        weights=ground.source.sha256 or f"random {spec.seed}",
        preprocessing=spec.preprocessing,
        precision=spec.precision,
        device=ground.device.type,
    )
    extractor = Extractor(
        model, classifier, recipe, device=ground.device, threads=ground.threads, context=ground.context
    )
    # Train and val may be parts of one index, whose features are computed once.
    indices = {split.index.digest: split.index for split in splits.values()}
    rows = dict(zip(indices, extractor.features(list(indices.values())), strict=True))
    return {name: rows[split.index.digest][split.positions] for name, split in splits.items()}


def _config(ground: _Ground, splits: Mapping[str, Split]) -> dict[str, Any]:
    """config.json of every checkpoint."""
    preprocessing = asdict(ground.job.spec.preprocessing)
    return {
        "library": ground.backbone.library,
        "model": ground.backbone.name,
        "classes": list(ground.job.classes),
        "preprocessing": {
            name: value.name.lower() if isinstance(value, Enum) else value for name, value in preprocessing.items()
        },
        "weights": asdict(ground.source),
        "images": {name: split.index.digest for name, split in splits.items()},
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__},
    }
