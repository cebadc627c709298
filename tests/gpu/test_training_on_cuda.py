"""A job on a GPU: what its CPU twin does, and the same bits after an interruption."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from podium.jobs.job import Job
from podium.jobs.spec import (
    AdamW,
    Augmentation,
    LinearHead,
    OddEven,
    Precision,
)
from podium.jobs.states import State
from podium.worker.fit import Stopped, StopReason, run
from podium.worker.fit.data import Pipeline, open_splits
from podium.worker.fit.local import LocalContext
from tests.tiny import tiny_images, tiny_spec

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CUDA = torch.device("cuda")
CHANGES = Augmentation(horizontal_flip=True, min_crop_area=0.3, color_jitter=0.3, rand_augment=2, random_erasing=0.5)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    train = tiny_images(tmp_path / "train", each=16, size=(40, 48))
    spec = tiny_spec(
        train,
        sorter=OddEven(),
        augmentation=CHANGES,
        optimizer=AdamW(learning_rate=3e-3),
        ema_decay=0.9,
        gradient_clip_norm=1.0,
        epochs=3,
        batch_size=12,
    )
    return Job(id="job-1", project="p", spec=spec, state=State.RUNNING, classes=("class0", "class1", "class2"))


def _fit(job: Job, root: Path, device: torch.device = CUDA, **options: Any) -> LocalContext:
    context = LocalContext(root, **options)
    run(job, context, device=device, threads=2)
    return context


def _with(job: Job, **changes: Any) -> Job:
    return replace(job, spec=replace(job.spec, **changes))


@pytest.mark.parametrize("precision", Precision)
def test_an_interrupted_run_ends_with_the_same_bits(job, tmp_path, precision):
    job = _with(job, precision=precision)
    whole = _fit(job, tmp_path / "whole")
    calls = iter(range(1000))
    with pytest.raises(Stopped):
        _fit(job, tmp_path / "parts", should_stop=lambda: StopReason.DRAINED if next(calls) == 5 else None)
    parts = _fit(job, tmp_path / "parts")

    first, second = whole.newest(), parts.newest()
    assert first is not None
    assert second is not None
    ours, theirs = load_file(first.folder / "model.safetensors"), load_file(second.folder / "model.safetensors")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_gpu_sees_the_images_that_the_cpu_sees(job):
    split = open_splits(job.spec, job.classes).train
    batches = [torch.arange(12), torch.arange(12, 24)]

    def inputs(device: torch.device) -> list[torch.Tensor]:
        pipeline = Pipeline(split, job.spec.preprocessing, CHANGES, seed=1, threads=2, device=device)
        return [batch.inputs.cpu() for batch in pipeline.batches(batches, epoch=3)]

    for ours, theirs in zip(inputs(CUDA), inputs(torch.device("cpu")), strict=True):
        assert torch.allclose(ours, theirs, atol=0.02)


def test_a_head_learns_what_it_learns_on_the_cpu(job, tmp_path):
    # The backbone's weights do not matter here.
    job = _with(job, augmentation=None, tuning=LinearHead(), optimizer=AdamW(learning_rate=1e-2))
    ours, theirs = _fit(job, tmp_path / "gpu"), _fit(job, tmp_path / "cpu", torch.device("cpu"))

    step = max(ours.metrics["val/loss"])
    assert ours.metrics["val/loss"][step] == pytest.approx(theirs.metrics["val/loss"][step], rel=1e-2)
