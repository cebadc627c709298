"""Training in one process, on tiny data. Above 400 lines, as each part of a spec shows in the same few runs."""

import hashlib
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from podium.jobs.job import Cause, Job
from podium.jobs.spec import (
    Adam,
    AdamW,
    Augmentation,
    CheckpointPolicy,
    ConstantSchedule,
    CosineSchedule,
    Evaluation,
    ImageFolder,
    ImbalancedNoisedHinge,
    JobSpec,
    LinearHead,
    NoisedHinge,
    Schedule,
    Sgd,
    Softmax,
    StepSchedule,
    Weights,
)
from podium.worker.fit import FitError, Stopped, StopReason, describe, evaluate, run, step
from podium.worker.fit.data import open_splits
from podium.worker.fit.learners import Standardizer
from podium.worker.fit.local import LocalContext
from podium.worker.fit.loss import criterion
from podium.worker.fit.optim import learning_rate

CPU = torch.device("cpu")


def _fit(job: Job, root: Path, **options: Any) -> LocalContext:
    context = LocalContext(root, **options)
    run(job, context, device=CPU, threads=2)
    return context


def _digest(context: LocalContext) -> tuple[int, list[str]]:
    saved = context.newest()
    assert saved is not None
    files = ("model.safetensors", "training.safetensors")
    return saved.step, [hashlib.sha256((saved.folder / name).read_bytes()).hexdigest() for name in files]


def _stop_at(calls: int, reason: StopReason = StopReason.DRAINED) -> Callable[[], StopReason | None]:
    """Asks to stop at the n-th question."""
    left = [calls]

    def should_stop() -> StopReason | None:
        left[0] -= 1
        return reason if left[0] < 0 else None

    return should_stop


def _weights(tmp_path: Path) -> Weights:
    torch.manual_seed(0)
    path = tmp_path / "backbone.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=10).state_dict(), path)
    return Weights(file=str(path))


def test_full_fine_tuning_learns_colours_and_reports_every_step(images, job, tmp_path):
    dataset = ImageFolder(train=images("train"), val=images("val", each=4), test=images("test", each=4))
    context = _fit(job(dataset.train, dataset=dataset, epochs=6), tmp_path / "run")

    total = 6 * (24 // 6)
    assert list(range(1, total + 1)) == list(context.metrics["train/loss"])
    assert list(range(1, total + 1)) == list(context.metrics["train/learning_rate"])
    assert list(range(0, total + 1, 4)) == list(context.metrics["val/top1"])
    assert [total] == list(context.metrics["test/top1"])
    assert context.metrics["test/top1"][total] > 0.9
    assert context.metrics["val/expected_accuracy"][4] == pytest.approx(
        (context.metrics["val/top1"][4] + context.metrics["val/top2"][4]) / 2
    )


@pytest.mark.parametrize("tuning", ["full", "head"])
@pytest.mark.parametrize("stopped_after", [1, 5])
def test_a_resumed_run_ends_with_the_same_bits(images, job, tmp_path, tuning, stopped_after):
    changes: dict[str, Any] = {"augmentation": Augmentation(horizontal_flip=True, min_crop_area=0.5)}
    if tuning == "head":
        changes = {"tuning": LinearHead(), "weights": _weights(tmp_path)}
    wanted = job(images("train"), epochs=3, optimizer=AdamW(weight_decay=0.1), **changes)
    whole = _fit(wanted, tmp_path / "whole")

    # questions: one a batch of evaluation or features, one a step
    before = 3 if tuning == "head" else 1
    with pytest.raises(Stopped):
        _fit(wanted, tmp_path / "parts", should_stop=_stop_at(before + stopped_after))
    parts = _fit(wanted, tmp_path / "parts")

    assert any("resumed from" in line for line in parts.lines)
    assert _digest(whole) == _digest(parts)
    for name, values in parts.metrics.items():
        assert name == "data/wait" or whole.metrics[name].items() >= values.items()


def test_an_evaluation_that_was_interrupted_is_made_up_for(images, job, tmp_path):
    wanted = job(images("train"), epochs=2)
    whole = _fit(wanted, tmp_path / "whole")
    # 1 question for the evaluation at step 0, 3 for the steps of the first epoch, then the one within its evaluation
    with pytest.raises(Stopped):
        _fit(wanted, tmp_path / "parts", should_stop=_stop_at(1 + 3))

    parts = _fit(wanted, tmp_path / "parts")

    assert parts.metrics["val/loss"][3] == whole.metrics["val/loss"][3]
    assert _digest(whole) == _digest(parts)


def test_a_fenced_attempt_saves_nothing(images, job, tmp_path):
    with pytest.raises(Stopped):
        _fit(job(images("train")), tmp_path / "run", should_stop=_stop_at(2, StopReason.FENCED))

    assert LocalContext(tmp_path / "run").newest() is None


#: Each run is a fork of a process that has imported what it needs and run none of it.
SCRIPT = """
import json, os, pickle, signal, sys
from pathlib import Path
import torch
from podium.worker.fit import run
from podium.worker.fit.local import LocalContext

torch.set_num_threads(1)

def killed_at(file, folder, last):
    context = LocalContext(Path(folder))
    def report(step, metrics, report=context.report):
        report(step, metrics)
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
    context.report = report
    run(pickle.loads(Path(file).read_bytes()), context, device=torch.device("cpu"), threads=1)

for line in sys.stdin:
    file, folder, steps = json.loads(line)
    ends = []
    for step in steps:
        if not (child := os.fork()):
            killed_at(file, folder, step)
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ends), flush=True)
os._exit(0)  # to take down what torch has built up takes long
"""


@pytest.fixture(scope="module")
def killed_at() -> Iterator[Callable[[Job, Path, Sequence[int]], list[int]]]:
    """Runs a job once for each step, on what the one before has left; how each of the processes ended.

    They are forks of one process, which imports once.
    """
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        asked, told = process.stdin, process.stdout
        assert asked
        assert told

        def killed(job: Job, folder: Path, steps: Sequence[int]) -> list[int]:
            file = folder.with_suffix(".pickle")
            file.write_bytes(pickle.dumps(job))
            print(json.dumps([str(file), str(folder), steps]), file=asked, flush=True)
            ends: list[int] = json.loads(told.readline())
            return ends

        yield killed


def test_a_killed_run_resumes_from_its_last_checkpoint_with_the_same_bits(images, job, tmp_path, killed_at):
    wanted = job(images("train"), tuning=LinearHead(), weights=_weights(tmp_path), epochs=4)
    whole = _fit(wanted, tmp_path / "whole")

    killed = killed_at(wanted, tmp_path / "parts", [5])
    saved = LocalContext(tmp_path / "parts").newest()
    parts = _fit(wanted, tmp_path / "parts")

    assert [-signal.SIGKILL] == killed
    assert saved is not None
    assert saved.step == 4
    assert [5, 6, 7, 8, 9, 10, 11, 12] == list(parts.metrics["train/loss"])
    assert _digest(whole) == _digest(parts)


def test_a_run_that_is_killed_at_random_steps_ends_with_the_same_bits(images, job, tmp_path, killed_at):
    change = Augmentation(horizontal_flip=True, min_crop_area=0.3, rand_augment=1, random_erasing=0.5, mixup_alpha=0.2)
    wanted = job(images("train"), epochs=4, augmentation=change, ema_decay=0.9, accumulation_steps=2)
    whole = _fit(wanted, tmp_path / "whole")

    steps = sorted(random.sample(range(1, 13), 2))
    killed = killed_at(wanted, tmp_path / "parts", steps)
    parts = _fit(wanted, tmp_path / "parts")

    assert [-signal.SIGKILL] * 2 == killed
    assert _digest(whole) == _digest(parts), f"killed at {steps}"


def test_the_saved_head_works_on_plain_features_in_the_librarys_own_model(images, job, tmp_path):
    wanted = job(images("train"), tuning=LinearHead(standardize=True), weights=_weights(tmp_path), epochs=8)
    context = _fit(wanted, tmp_path / "run")
    saved = context.newest()
    assert saved is not None
    folder = saved.folder

    config = json.loads((folder / "config.json").read_text())
    model = timm.create_model(config["model"], num_classes=len(config["classes"]))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.eval()

    assert ["class0", "class1", "class2"] == config["classes"]
    trained = load_file(folder / "training.safetensors")
    chunks = [load_file(file)["features"] for file in sorted((tmp_path / "run" / "features").glob("*/*"))]
    features = torch.cat(chunks)
    held_in = features[_train_positions(wanted)]
    scale = Standardizer.of(held_in, True)
    expected = scale(features) @ trained["learner.weight"].T + trained["learner.bias"]
    assert torch.allclose(expected, model.get_submodule("fc")(features), atol=1e-4)


def _train_positions(job: Job) -> torch.Tensor:
    return open_splits(job.spec, job.classes).train.positions


def test_features_are_computed_once_for_all_jobs_with_the_same_images_and_weights(images, job, tmp_path):
    wanted = job(images("train"), tuning=LinearHead(), weights=_weights(tmp_path))
    _fit(wanted, tmp_path / "run")
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "features").glob("*/*")}

    shutil.rmtree(tmp_path / "run" / "checkpoints")
    other = job(wanted.spec.dataset.train, tuning=LinearHead(), weights=wanted.spec.weights, seed=1)
    again = _fit(other, tmp_path / "run")

    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "features").glob("*/*")}
    assert again.metrics["train/loss"]


def test_a_damaged_chunk_of_features_is_computed_again(images, job, tmp_path):
    wanted = job(images("train"), tuning=LinearHead(), weights=_weights(tmp_path))
    whole = _fit(wanted, tmp_path / "whole")
    with pytest.raises(Stopped):
        _fit(wanted, tmp_path / "parts", should_stop=_stop_at(3))
    (chunk,) = (tmp_path / "parts" / "features").glob("*/*")
    chunk.write_bytes(chunk.read_bytes()[:-10])

    assert _digest(whole) == _digest(_fit(wanted, tmp_path / "parts"))


def test_a_head_on_a_checkpoint_of_an_earlier_job(images, job, tmp_path):
    train = images("train")
    first = _fit(job(train), tmp_path / "run").newest()
    assert first is not None
    second = job(train, tuning=LinearHead(), weights=Weights(checkpoint=str(first.step)), epochs=3)

    context = LocalContext(tmp_path / "run")
    context.newest = lambda: None  # type: ignore[method-assign]  # so that it does not resume the first job
    run(second, context, device=CPU, threads=1)

    assert context.metrics["train/loss"]


@pytest.mark.parametrize("optimizer", [Sgd(learning_rate=1e30), AdamW(learning_rate=1000.0)])
def test_a_loss_that_is_not_finite_stops_the_job_before_the_update(images, job, tmp_path, optimizer):
    wanted = job(
        images("train"), optimizer=optimizer, schedule=ConstantSchedule(), epochs=50, sorter=Softmax(), k={1: 1.0}
    )
    with pytest.raises(FitError) as caught:
        _fit(wanted, tmp_path / "run")

    assert caught.value.cause is Cause.NON_FINITE
    assert "learning rate" in str(caught.value)
    saved = LocalContext(tmp_path / "run").newest()
    state = {} if saved is None else load_file(saved.folder / "model.safetensors")
    # What an update writes. Running variances are squares, and overflow where the loss is still finite.
    assert [] == [name for name, value in state.items() if "running_" not in name and not value.isfinite().all()]


def test_scores_that_are_not_finite_stop_the_job_and_are_told_by_the_evaluation_before(images, job, tmp_path):
    path = tmp_path / "broken.safetensors"
    state = timm.create_model("test_resnet", num_classes=10).state_dict()
    save_file(
        {name: tensor * math.nan if tensor.is_floating_point() else tensor for name, tensor in state.items()}, path
    )
    context = LocalContext(tmp_path / "run")

    with pytest.raises(FitError) as caught:
        run(job(images("train"), weights=Weights(file=str(path))), context, device=CPU, threads=1)

    assert caught.value.cause is Cause.NON_FINITE
    assert "the loss became nan at step 1, with learning rate" in str(caught.value)
    assert math.isnan(context.metrics["val/loss"][0])
    assert "the loss on val is nan at step 0" in context.lines
    assert context.newest() is None


@pytest.mark.parametrize("monitor", ["expected_accuracy", "loss"])
def test_a_model_whose_scores_are_not_finite_is_never_the_best(images, job, tmp_path, monitor):
    evaluation = Evaluation(top_k=(1, 2), monitor=monitor)
    destroyed = {"optimizer": Sgd(learning_rate=1e30), "schedule": ConstantSchedule(), "epochs": 1, "batch_size": 18}

    dataset = ImageFolder(train=images("train"), test=images("test"), val_fraction=0.25)
    wanted = job(dataset.train, dataset=dataset, evaluation=evaluation, **destroyed)

    context = _fit(wanted, tmp_path / "run")

    assert not math.isfinite(context.metrics["val/loss"][1])
    assert context.best() is None
    # Nothing else stands in for it.
    assert not any(name.startswith("test/") for name in context.metrics)
    assert f"no checkpoint of a best model by {monitor} is there: nothing is tested as it" in context.lines


def test_the_best_checkpoint_is_the_one_that_is_tested(images, job, tmp_path):
    dataset = ImageFolder(train=images("train"), val=images("val", each=4), test=images("val2", each=4))
    evaluation = Evaluation(top_k=(1, 2), monitor="loss")
    context = _fit(job(dataset.train, dataset=dataset, epochs=5, evaluation=evaluation), tmp_path / "run")

    losses = {step: loss for step, loss in context.metrics["val/loss"].items() if step > 0}
    best = context.best()
    assert best is not None
    assert best.step == min(losses, key=lambda step: losses[step])


def test_policies_decide_when_checkpoints_are_written(images, job, tmp_path):
    policy = CheckpointPolicy(every_epochs=2, every_steps=0)
    evaluation = Evaluation(top_k=(1,), every_epochs=100)
    _fit(job(images("train"), epochs=5, checkpoints=policy, evaluation=evaluation, k={1: 1.0}), tmp_path / "run")

    assert [6, 12, 15] == [int(folder.name) for folder in sorted((tmp_path / "run" / "checkpoints").iterdir())]


def test_classes_are_counted_in_the_training_split_alone(images, job, tmp_path, monkeypatch):
    train = images("train")
    for number in range(4):
        (Path(train) / "class1" / f"{number}.png").unlink()
    counted = []
    for module in (step, evaluate):

        def spy(spec: JobSpec, class_counts: Sequence[int], **options: Any) -> nn.Module:
            counted.append(class_counts)
            return criterion(spec, class_counts, **options)

        monkeypatch.setattr(module, "criterion", spy)

    _fit(job(train, sorter=ImbalancedNoisedHinge(), epochs=1), tmp_path / "run")

    # A quarter of 8, 4 and 8 images is held out.
    assert {(6, 3, 6)} == set(counted)


def test_a_loss_that_draws_noise_is_the_same_after_an_interruption(images, job, tmp_path):
    wanted = job(images("train"), sorter=NoisedHinge(), epochs=2)
    whole = _fit(wanted, tmp_path / "whole")
    # Within the evaluation after the first epoch, whose generators the resumed attempt has never used.
    with pytest.raises(Stopped):
        _fit(wanted, tmp_path / "parts", should_stop=_stop_at(1 + 3))

    parts = _fit(wanted, tmp_path / "parts")

    assert whole.metrics["val/loss"].items() >= parts.metrics["val/loss"].items()
    assert _digest(whole) == _digest(parts)


def test_schedules_warm_up_and_come_down(images, job):
    train = images("train")

    def rates(schedule: Schedule) -> list[float]:
        spec = job(train, schedule=schedule, epochs=10, optimizer=Adam(learning_rate=1.0)).spec
        return [learning_rate(spec, step, 4) for step in range(40)]

    cosine, steps = rates(CosineSchedule(warmup_epochs=1)), rates(StepSchedule(every_epochs=5, factor=0.1))
    assert [1.0] * 40 == rates(ConstantSchedule())
    assert cosine[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert cosine[4] == 1.0
    assert cosine[22] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.01
    assert (steps[19], steps[20]) == (1.0, 0.1)


@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_running_out_of_memory_comes_with_a_remedy(raised):
    error = describe(raised)

    assert error.cause is Cause.OOM_DEVICE
    assert "batch_size" in error.remedy


def test_an_unforeseen_error_keeps_its_traceback():
    try:
        math.sqrt(-1)
    except ValueError as caught:
        error = describe(caught)

    assert error.cause is Cause.INTERNAL
    assert "math.sqrt(-1)" in error.traceback
