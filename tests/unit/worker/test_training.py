"""What a spec asks of the training beyond steps: averages, parts, clipping, patience, further monitors, the end.

Long, because all of it is asked of the same few helpers: a tiny job, and a step on a small module.
"""

import functools
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from podium.jobs.job import Cause, Job
from podium.jobs.spec import (
    Augmentation,
    CheckpointPolicy,
    ConstantSchedule,
    Evaluation,
    ImageFolder,
    JobSpec,
    Lamb,
    LastBlocks,
    LinearHead,
    Muon,
    Precision,
    Sgd,
    Unreadable,
    Weights,
)
from podium.worker.fit import FitError, Stopped, StopReason, run
from podium.worker.fit.data import Batch, Split
from podium.worker.fit.local import LocalContext
from podium.worker.fit.optim import optimizer
from podium.worker.fit.step import Stepper
from podium.worker.fit.world import alone

CPU = torch.device("cpu")


def _fit(job: Job, root: Path, **options: Any) -> LocalContext:
    context = LocalContext(root, **options)
    run(job, context, device=CPU, threads=1)
    return context


def _model(context: LocalContext) -> dict[str, Tensor]:
    saved = context.newest()
    assert saved is not None
    return load_file(saved.folder / "model.safetensors")


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _stop_at(calls: int) -> Callable[[], StopReason | None]:
    left = [calls]

    def should_stop() -> StopReason | None:
        left[0] -= 1
        return StopReason.DRAINED if left[0] == -1 else None

    return should_stop


def _weights(tmp_path: Path) -> Weights:
    torch.manual_seed(0)
    path = tmp_path / "backbone.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=10).state_dict(), path)
    return Weights(file=str(path))


EVERYTHING = {
    "augmentation": Augmentation(
        horizontal_flip=True,
        min_crop_area=0.3,
        color_jitter=0.3,
        rand_augment=2,
        random_erasing=0.5,
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
    ),
    "label_smoothing": 0.1,
    "ema_decay": 0.9,
    "gradient_clip_norm": 1.0,
    "accumulation_steps": 2,
    "evaluation": Evaluation(top_k=(1, 2), also_monitor=("top1", "loss"), every_steps=2),
}
SMALL = {"evaluation": Evaluation(top_k=(1, 2), also_monitor=("loss",)), "ema_decay": 0.8}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(EVERYTHING, id="everything at once"),
        pytest.param({"optimizer": Muon()} | SMALL, id="muon"),
        pytest.param({"optimizer": Lamb(), "precision": Precision.BF16}, id="lamb, bf16"),
        pytest.param({"optimizer": Sgd(momentum=0.9), "tuning": LastBlocks(), "weights": ...}, id="last blocks"),
        pytest.param({"tuning": LinearHead(), "weights": ...} | SMALL, id="head"),
    ],
)
def test_an_attempt_that_is_stopped_again_and_again_ends_with_the_same_bits(images, job, tmp_path, changes):
    if "weights" in changes:
        changes = changes | {"weights": _weights(tmp_path)}
    dataset = ImageFolder(train=images("train"), test=images("test", each=2), val_fraction=0.25)
    wanted = job(dataset.train, dataset=dataset, epochs=3, **changes)
    whole = _fit(wanted, tmp_path / "whole")

    chance = random.Random(str(sorted(changes)))
    for _ in range(100):
        context = LocalContext(tmp_path / "parts", should_stop=_stop_at(chance.randint(3, 9)))
        try:
            run(wanted, context, device=CPU, threads=chance.randint(1, 3))
        except Stopped:
            continue
        break

    assert any("resumed" in line for line in context.lines)
    assert _same(_model(whole), _model(context))
    for name, values in context.metrics.items():
        assert name == "data/wait" or whole.metrics[name].items() >= values.items()
    assert {name for name in whole.metrics if name.startswith("test")} <= context.metrics.keys()


def test_the_model_that_is_handed_over_is_the_best_one_with_what_it_makes_of_both_splits(images, job, tmp_path):
    dataset = ImageFolder(train=images("train"), val=images("val", each=4), test=images("test", each=4))
    evaluation = Evaluation(top_k=(1, 2), monitor="loss")
    context = _fit(job(dataset.train, dataset=dataset, epochs=5, evaluation=evaluation), tmp_path / "run")

    final = context.newest()
    assert final is not None
    told = json.loads((final.folder / "evaluation.json").read_text())
    losses = {step: loss for step, loss in context.metrics["val/loss"].items() if step > 0}
    best = min(losses, key=lambda step: losses[step])
    assert json.loads((final.folder / "config.json").read_text())["step"] == best
    assert told["val"]["metrics"]["loss"] == losses[best]
    assert told["test"]["metrics"]["top1"] == context.metrics["test/top1"][final.step]
    assert {name: one["images"] for name, one in told["test"]["classes"].items()} == {
        f"class{number}": 4 for number in range(3)
    }


def test_each_further_monitor_has_its_own_best_model_tested(images, job, tmp_path):
    dataset = ImageFolder(train=images("train"), val=images("val", each=4), test=images("test", each=4))
    evaluation = Evaluation(top_k=(1, 2), monitor="top1", also_monitor=("loss", "top2"))
    wanted = job(dataset.train, dataset=dataset, epochs=4, evaluation=evaluation)
    context = _fit(wanted, tmp_path / "run")
    by_loss = _fit(
        job(dataset.train, dataset=dataset, epochs=4, evaluation=replace(evaluation, monitor="loss", also_monitor=())),
        tmp_path / "by loss",
    )

    step = max(context.metrics["val/loss"])
    assert context.metrics["test_at_best_loss/loss"][step] == by_loss.metrics["test/loss"][step]
    assert context.metrics["test_at_best_loss/top2"][step] == by_loss.metrics["test/top2"][step]
    assert "test_at_best_top2/top2" in context.metrics
    assert not context.scratch().exists()


def test_of_the_best_models_by_a_further_monitor_only_the_last_one_takes_room(images, job, tmp_path):
    evaluation = Evaluation(top_k=(1, 2), monitor="top1", also_monitor=("loss",))
    wanted = job(images("train"), epochs=6, evaluation=evaluation, checkpoints=CheckpointPolicy(every_epochs=2))
    left: list[int] = []

    class Watched(LocalContext):
        def report(self, step: int, metrics: Mapping[str, float]) -> None:
            super().report(step, metrics)
            left.append(len(list(self.scratch().glob("*"))))

    context = Watched(tmp_path / "run")
    run(wanted, context, device=CPU, threads=1)

    losses = [loss for step, loss in context.metrics["val/loss"].items() if step > 0]
    improvements = sum(loss < min(losses[:place], default=math.inf) for place, loss in enumerate(losses))
    # The one that the newest checkpoint knows, and those of the two epochs since.
    assert max(left) <= 3 < improvements


def test_a_job_without_patience_left_stops_and_hands_over_its_best_model(images, job, tmp_path):
    evaluation = Evaluation(top_k=(1,), monitor="loss", patience=2)
    wanted = job(
        images("train"),
        k={1: 1.0},
        epochs=50,
        evaluation=evaluation,
        optimizer=Sgd(learning_rate=1e-30),
        schedule=ConstantSchedule(),
        # A loss that cannot become better: no statistics of a normalisation are trained in evaluation mode.
        tuning=LinearHead(),
        weights=_weights(tmp_path),
    )
    context = _fit(wanted, tmp_path / "run")

    assert [0, 3, 6, 9] == list(context.metrics["val/loss"])
    assert any("stopped early at step 9: 2 evaluations brought no better val/loss" in line for line in context.lines)
    assert context.newest() is not None


def test_a_batch_in_parts_is_the_same_step(images, job, tmp_path):
    # Without batch normalisation, which sees each part for itself.
    common = {"backbone": "timm/test_vit", "optimizer": Sgd(learning_rate=0.1), "epochs": 1}
    whole = _fit(job(images("train", side=160), **common), tmp_path / "whole")
    parts = _fit(job(str(tmp_path / "train"), accumulation_steps=3, **common), tmp_path / "parts")

    ours, theirs = _model(whole), _model(parts)
    assert not _same(ours, _initial(job(str(tmp_path / "train"), **common)))
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=1e-5), name


def _initial(wanted: Job) -> dict[str, Tensor]:
    torch.manual_seed(wanted.spec.seed)
    model = timm.create_model(wanted.spec.backbone.removeprefix("timm/"), num_classes=3)
    return dict(model.state_dict())


class _Rows:
    """A learner of a linear layer on given rows."""

    def __init__(self, module: nn.Module, labels: Tensor) -> None:
        self.module = module
        rows = Split(images=None, positions=labels, labels=labels, classes=3)  # type: ignore[arg-type]  # there are none
        self.splits: Mapping[str, Split] = {"train": rows}

    def train(self) -> None:
        self.module.train()

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a step needs no {name}")


def _stepper(spec: JobSpec, module: nn.Module) -> Stepper:
    torch.manual_seed(0)
    learner: Any = _Rows(module, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    return Stepper(spec, learner, optimizer(spec, module), alone(CPU), 4)


def _batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(count, 5, generator=generator), torch.arange(count) % 3)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 10))
def test_a_gradient_is_never_longer_than_the_limit(limit):
    before = nn.Linear(5, 3)
    spec = _spec(optimizer=Sgd(learning_rate=1.0, momentum=0.0), schedule=ConstantSchedule(), gradient_clip_norm=limit)
    free = replace(spec, gradient_clip_norm=0.0)
    moved = []
    for wanted in (spec, free):
        module = nn.Linear(5, 3)
        module.load_state_dict(before.state_dict())
        _stepper(wanted, module).step(0, [_batch()], 8, None)
        pairs = zip(module.parameters(), before.parameters(), strict=True)
        moved.append(torch.cat([(after - at_first).flatten() for after, at_first in pairs]))

    clipped, whole = moved
    assert clipped.norm() <= limit * 1.001
    assert torch.allclose(clipped, whole * min(1.0, limit / whole.norm().item()), atol=1e-4)


def _spec(**changes: Any) -> JobSpec:
    from podium.jobs.spec import FullFineTuning, Subset

    parts: dict[str, Any] = {
        "backbone": "timm/test_resnet",
        "tuning": FullFineTuning(),
        "dataset": ImageFolder(train="/"),
        "k": {1: 0.5, 2: 0.5},
        "m": 3,
        "sorter": Subset(),
        "epochs": 1,
        "batch_size": 8,
    }
    return JobSpec(**parts | changes)


class _Small(nn.Module):
    """Fits so many images, and no more."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.fits = fits

    def forward(self, rows: Tensor) -> Tensor:
        if len(rows) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore")
        scores: Tensor = self.layer(rows)
        return scores


@pytest.mark.parametrize(
    ("fits", "told"),
    [
        (5, "4 at once fit: multiply accumulation_steps by 2, which keeps the batch, or divide batch_size by 2"),
        (2, "2 at once fit: multiply accumulation_steps by 4"),
        (0, "not even one image fits"),
    ],
)
def test_running_out_of_memory_names_what_would_have_fitted(fits, told):
    with pytest.raises(FitError) as caught:
        _stepper(_spec(), _Small(fits)).step(0, [_batch()], 8, None)

    assert caught.value.cause is Cause.OOM_DEVICE
    assert "too small for 8 images at once: CUDA out of memory. Tried to allocate 20.00 MiB" in str(caught.value)
    assert caught.value.remedy.startswith(told)


def test_a_step_whose_loss_is_no_number_changes_nothing():
    module = nn.Linear(5, 3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    batch = Batch(torch.full((8, 5), math.nan), torch.arange(8) % 3)

    with pytest.raises(FitError) as caught:
        _stepper(_spec(schedule=ConstantSchedule(), ema_decay=0.5), module).step(7, [batch], 8, None)

    assert caught.value.cause is Cause.NON_FINITE
    assert "at step 8, with learning rate 0.001" in str(caught.value)
    assert _same(before, module.state_dict())


def test_half_precision_with_a_scaled_loss_is_for_gpus():
    with pytest.raises(FitError, match="FP16 needs a GPU"):
        _stepper(_spec(precision=Precision.FP16), nn.Linear(5, 3))


def test_a_batch_that_has_fewer_images_than_parts_is_refused(images, job, tmp_path):
    with pytest.raises(FitError, match="a batch of 6 images cannot be divided into 7 parts"):
        _fit(job(images("train"), accumulation_steps=7), tmp_path)


def test_a_batch_of_more_images_than_there_are_is_said_to_make_one_step_an_epoch(images, job, tmp_path):
    context = _fit(job(images("train"), batch_size=1000, epochs=2), tmp_path)

    saved = context.newest()
    assert saved is not None
    assert 2 == saved.step
    assert any(
        "batch_size is 1000, and train has 1" in line and "every epoch is one step" in line for line in context.lines
    )


def test_tensors_are_not_filled_before_their_results_are_written(images, job, tmp_path):
    _fit(job(images("train"), epochs=1), tmp_path)

    assert torch.are_deterministic_algorithms_enabled()
    with torch.profiler.profile() as profile:
        nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8))
    assert "aten::fill_" not in {event.key for event in profile.key_averages()}


def test_an_evaluation_puts_no_more_images_through_the_model_at_once_than_a_part_of_a_step(images, job, tmp_path):
    seen: set[int] = set()
    handle = nn.modules.module.register_module_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0])))
    try:
        _fit(job(images("train"), accumulation_steps=3, epochs=1), tmp_path)
    finally:
        handle.remove()

    assert max(seen) == 2


def test_an_unreadable_image_that_is_alone_in_the_last_batch_of_an_evaluation_is_left_out(images, job, tmp_path):
    dataset = ImageFolder(train=images("train"), val=images("val", each=37, side=8))
    (Path(dataset.val) / "class2" / "9.png").write_bytes(b"no image")
    context = _fit(job(dataset.train, dataset=dataset, batch_size=10, unreadable=Unreadable.SKIP), tmp_path / "run")

    saved = context.newest()
    assert saved is not None
    assert json.loads((saved.folder / "evaluation.json").read_text())["val"]["images"] == 110


def test_a_compiled_model_learns_the_same(images, job, tmp_path, monkeypatch):
    # Inductor takes more than a minute for a small model; how the traced model is trained is the same with any backend.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    common = {"epochs": 1, "backbone": "timm/test_resnet"}
    plain = _fit(job(images("train"), **common), tmp_path / "plain")
    compiled = _fit(job(str(tmp_path / "train"), compile=True, **common), tmp_path / "compiled")

    assert compiled.metrics["train/loss"][3] == pytest.approx(plain.metrics["train/loss"][3], rel=1e-3)
    assert _model(plain).keys() == _model(compiled).keys()


def test_the_share_of_waiting_and_the_unreadable_images_are_reported_for_every_epoch(images, job, tmp_path):
    context = _fit(job(images("train")), tmp_path / "run")

    assert [3, 6] == list(context.metrics["data/wait"]) == list(context.metrics["data/unreadable"])
    assert all(0 <= share <= 1 for share in context.metrics["data/wait"].values())


@pytest.mark.parametrize("tuning", ["full", "head"])
def test_weights_that_know_the_jobs_classes_are_evaluated_untouched(images, job, tmp_path, tuning):
    dataset = ImageFolder(train=images("train"), val=images("val", each=4), test=images("test", each=4))
    first = _fit(job(dataset.train, dataset=dataset, epochs=4), tmp_path / "run")
    saved = first.newest()
    assert saved is not None
    changes = {"tuning": LinearHead()} if tuning == "head" else {}
    second = job(dataset.train, dataset=dataset, weights=Weights(checkpoint=str(saved.step)), epochs=1, **changes)

    context = LocalContext(tmp_path / "run")
    context.newest = lambda: None  # type: ignore[method-assign]  # so that it does not resume the first job
    run(second, context, device=CPU, threads=1)

    told = json.loads((saved.folder / "evaluation.json").read_text())
    assert context.metrics["val_untouched/top1"] == {0: told["val"]["metrics"]["top1"]}
    assert context.metrics["val_untouched/loss"][0] == pytest.approx(told["val"]["metrics"]["loss"], abs=1e-5)
    assert list(context.metrics["test_untouched/top1"].values()) == [told["test"]["metrics"]["top1"]]
