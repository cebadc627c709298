"""One attempt's work, from the job to the end of its training."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from podium.jobs.errors import PodiumError
from podium.jobs.events import Level
from podium.jobs.job import Cause, Job, Progress
from podium.jobs.spec import FullFineTuning, LastBlocks, LinearHead
from podium.worker.fit import backbones, checkpoint, weights
from podium.worker.fit._failures import FitError
from podium.worker.fit.backbones import Backbone
from podium.worker.fit.blocks import Block, blocks, freeze_below
from podium.worker.fit.data import Split, open_splits
from podium.worker.fit.evaluate import Evaluator
from podium.worker.fit.features import Extractor, Recipe, linear_classifier
from podium.worker.fit.finish import Finish
from podium.worker.fit.learners import FullLearner, HeadLearner, Learner
from podium.worker.fit.loop import Training
from podium.worker.fit.optim import optimizer
from podium.worker.fit.world import World, alone
from podium.worker.job_context import JobContext, Stopped, StopReason


def choose_device() -> torch.device:
    """The GPU of this slot, the CPU where it has none.

    Raises:
        FitError: it has one that cannot be used; on the CPU the job would hold it for days.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        message = f"torch {torch.__version__} cannot use {visible}"
        remedy = "look after the GPU and its driver, or install a build of torch for this driver"
        raise FitError(Cause.NODE_LOST, message, remedy)
    return torch.device("cpu")


def run(
    job: Job, context: JobContext, *, threads: int, device: torch.device | None = None, world: World | None = None
) -> None:
    """Does a job: prepares, trains, tests.

    Args:
        job: the job, its spec resolved.
        context: the line to the job.
        threads: how many threads may decode images.
        device: where to compute; None: see `choose_device`.
        world: the ranks that do this job together, each of which calls; None: this one alone.

    Raises:
        Stopped: the attempt is to end before the job does.
        FitError: the job cannot go on; so may DatasetError and torch.OutOfMemoryError say. See `describe`.
    """
    device = device or choose_device()
    spec, world = job.spec, world or alone(device)
    _be_deterministic()
    _seed(spec.seed)
    # What comes before the first step may take long; each part of it that is done is a sign that the attempt gets on.
    saved = context.newest()
    before = saved.step if saved else 0
    context.progress(Progress(phase="listing images", step=before))
    dataset = open_splits(spec, job.classes)
    context.progress(Progress(phase="loading weights", step=before))
    splits = {"train": dataset.train, "val": dataset.val} | ({"test": dataset.test} if dataset.test else {})
    backbone = backbones.resolve(spec.backbone, spec.preprocessing.image_size)
    model = backbone.build(len(job.classes))
    backbones.check_input(model, spec.preprocessing.image_size or 0, len(job.classes))
    with world.first_goes_first():
        source = _fill(job, model, backbone, context)
    if world.first:
        ranks = f", {world.size} ranks" if world.size > 1 else ""
        context.log(
            ", ".join(f"{name}: {len(split)} images" for name, split in splits.items()) + f", on {device}{ranks}"
        )
        for told in dataset.leaks():
            context.log(told, Level.WARNING)
        context.log(f"backbone {backbone.library}/{backbone.name}, weights {source.name} {source.sha256[:12]}".rstrip())

    ground = _Ground(
        job=job, context=context, world=world, threads=threads, backbone=backbone, source=source, splits=splits
    )
    task = _head(ground, model) if isinstance(spec.tuning, LinearHead) else _full(ground, model, spec.tuning)
    config, evaluate = _config(ground), Evaluator(spec, job.classes, context, world)
    change = optimizer(spec, task.learner.module, groups_of=task.blocks)
    training = Training(spec, task.learner, change, context, world, evaluate, config, task.untouched)
    at = training.run()
    Finish(spec, task.learner, context, world, evaluate, config, task.untouched).run(at)


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What all kinds of training start from."""

    job: Job
    context: JobContext
    world: World
    threads: int
    backbone: Backbone
    source: weights.Source
    splits: Mapping[str, Split]


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is trained."""

    learner: Learner
    blocks: tuple[Block, ...] | None
    untouched: Callable[[], Learner] | None
    """The model as the weights have it, where its own classifier knows the job's classes."""


def _seed(seed: int) -> None:
    torch.manual_seed(seed & (2**63 - 1))


def _be_deterministic() -> None:
    # For bit-identical resumption; the process's environment has CUBLAS_WORKSPACE_CONFIG for the same reason.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Would write to every tensor before its result is written to it: a twentieth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # stubs


def _fill(job: Job, model: nn.Module, backbone: Backbone, context: JobContext) -> weights.Source:
    """Gives the model its weights. A resumed attempt takes them from its checkpoint: their file may be gone by now."""
    if (saved := context.newest()) is None:
        return weights.load(model, backbone, job.spec.weights, context)
    backbones.restore(model, load_file(saved.folder / "model.safetensors"))
    return weights.Source(**checkpoint.read_config(saved.folder)["weights"])


def _full(ground: _Ground, model: nn.Module, tuning: FullFineTuning | LastBlocks) -> _Task:
    classifier = ground.backbone.classifier_parameters()
    frozen = freeze_below(model, tuning.blocks, classifier) if isinstance(tuning, LastBlocks) else ()

    def untouched() -> Learner:
        return _learner(ground, _untouched(ground))

    return _Task(
        learner=_learner(ground, model, frozen),
        blocks=blocks(model, classifier),
        untouched=untouched if _knows_the_classes(ground) else None,
    )


def _learner(ground: _Ground, model: nn.Module, frozen: tuple[nn.Module, ...] = ()) -> Learner:
    spec = ground.job.spec
    return FullLearner(
        model,
        ground.splits,
        spec.preprocessing,
        spec.augmentation,
        seed=spec.seed,
        threads=ground.threads,
        device=ground.world.device,
        unreadable=spec.unreadable,
        frozen=frozen,
    )


def _head(ground: _Ground, model: nn.Module) -> _Task:
    spec = ground.job.spec
    assert isinstance(spec.tuning, LinearHead)
    if ground.world.device.type == "cpu":
        # A head's tensors are small: threads that share an operation would mostly wait for one another.
        torch.set_num_threads(1)
    side = spec.preprocessing.image_size or 0
    classifier, _ = linear_classifier(model, ground.backbone, torch.rand(1, 3, side, side))
    features = _features(ground, model, classifier)
    _seed(spec.seed)  # the new head does not depend on what was cached

    def head(standardize: bool) -> HeadLearner:
        return HeadLearner(
            dict(model.state_dict()),
            classifier,
            ground.splits,
            features,
            standardize=standardize,
            classes=len(ground.job.classes),
            device=ground.world.device,
        )

    def untouched() -> Learner:
        learner = head(standardize=False)
        learner.restore({}, dict(_untouched(ground).get_submodule(classifier).state_dict()))
        return learner

    return _Task(
        learner=head(spec.tuning.standardize),
        blocks=None,
        untouched=untouched if _knows_the_classes(ground) else None,
    )


def _knows_the_classes(ground: _Ground) -> bool:
    """As rank 0 finds it: ranks that evaluate different models would wait for one another."""
    return bool(ground.world.told(int(_finds_the_classes(ground))))


def _finds_the_classes(ground: _Ground) -> bool:
    wanted = ground.job.spec.weights
    try:
        return wanted is not None and weights.knows_classes(wanted, ground.backbone, ground.job.classes, ground.context)
    except PodiumError as error:
        # A checkpoint that the job no longer needs has been removed since its first attempt.
        ground.context.log(f"the untouched model is not evaluated: {error.message}", Level.WARNING)
        return False


def _untouched(ground: _Ground) -> nn.Module:
    assert ground.job.spec.weights is not None
    return weights.untouched(ground.backbone, ground.job.spec.weights, len(ground.job.classes), ground.context)


def _features(ground: _Ground, model: nn.Module, classifier: str) -> dict[str, torch.Tensor]:
    spec, world = ground.job.spec, ground.world
    recipe = Recipe(
        backbone=ground.backbone,
        weights=ground.source.sha256 or f"random {spec.seed}",
        preprocessing=spec.preprocessing,
        precision=spec.precision,
        device=world.device.type,
    )
    extractor = Extractor(
        model,
        classifier,
        recipe,
        device=world.device,
        threads=ground.threads,
        context=ground.context,
        unreadable=spec.unreadable,
        rank=world.rank,
        size=world.size,
    )
    # Train and val may be parts of one source, whose features are computed once.
    sources = {split.images.digest: split.images for split in ground.splits.values()}
    if world.size > 1:
        _together(world, lambda: extractor.share(list(sources.values())))
    rows = dict(zip(sources, extractor.features(list(sources.values())), strict=True))
    return {name: rows[split.images.digest][split.positions] for name, split in ground.splits.items()}


def _together(world: World, work: Callable[[], None]) -> None:
    """Does work on every rank, and leaves it on all where it was stopped on any."""
    reason = None
    try:
        work()
    except Stopped as stopped:
        reason = stopped.reason
    reasons = (None, *StopReason)
    codes = world.gathered(torch.tensor([reasons.index(reason)]))
    if (highest := int(codes.max())) > 0:
        raise Stopped(reasons[highest] or StopReason.CANCELLED)


def _config(ground: _Ground) -> dict[str, Any]:
    """config.json of every checkpoint."""
    preprocessing = asdict(ground.job.spec.preprocessing)
    return {
        "library": ground.backbone.library,
        "model": ground.backbone.name,
        "options": dict(ground.backbone.options),
        "classes": list(ground.job.classes),
        "preprocessing": {
            name: value.name.lower() if isinstance(value, Enum) else value for name, value in preprocessing.items()
        },
        "weights": asdict(ground.source),
        "images": {name: split.images.digest for name, split in ground.splits.items()},
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__},
    }
