"""From a submit to the first optimizer step: a real server, queue and worker, an idle slot, a tiny model on the CPU.

The clock stops when the client has the first point of "train/loss", so the way back is in the figure. Warm: the slot's
spare process has its imports done, as it has within seconds of its last attempt. Cold: it was killed just before.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.rows import Row, turns
from podium.client import Client, JobHandle
from podium.client.local import Stack, StackConfig
from podium.jobs.events import MetricBatch
from podium.jobs.spec import (
    AdamW,
    Evaluation,
    FullFineTuning,
    ImageFolder,
    Interpolation,
    JobSpec,
    Preprocessing,
    Subset,
)

_CLASSES, _EACH, _SIDE = 5, 10, 32
_LIMIT = 2.0
_PATIENCE = 120.0


def rows(folder: Path, count: int) -> list[Row]:
    """Seconds from submit to the first step, warm and cold, medians of so many turns."""
    _make_images(folder / "images")
    stack = Stack(StackConfig(directory=folder / "stack", listen="127.0.0.1:0", slots=1, data_roots=(folder,)), print)
    stack.start()
    try:
        with Client(stack.target) as client:
            warm, cold = turns(count, lambda: _seconds(client, folder, spare=True), lambda: _seconds(client, folder))
    finally:
        stack.stop()
    what = f"submit to first step, test_resnet, {_SIDE} px, {_CLASSES * _EACH} images, CPU"
    return [_row(f"{what}, warm", warm, "<= 1"), _row(f"{what}, spare process killed", cold, "")]


def _row(what: str, seconds: list[float], bar: str) -> Row:
    median = statistics.median(seconds)
    spread = (min(seconds) / _LIMIT, max(seconds) / _LIMIT)
    return Row(what=what, ours=f"{median:.2f} s", peer=f"{_LIMIT:.0f} s", ratio=median / _LIMIT, bar=bar, spread=spread)


def _seconds(client: Client, folder: Path, *, spare: bool = False) -> float:
    """One job on an idle worker."""
    process = _spare()
    if not spare:
        process.kill()
        _until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    before = time.perf_counter()
    job = client.submit(_spec(folder))
    _await_first_step(job)
    seconds = time.perf_counter() - before
    job.wait()
    return seconds


def _await_first_step(job: JobHandle) -> None:
    for event in job.watch():
        if isinstance(event.payload, MetricBatch) and any(one.name == "train/loss" for one in event.payload.series):
            return
    raise RuntimeError(f"the job ended without a step: {job.wait().error}")


def _spare() -> psutil.Process:
    """The slot's process, once it waits with its imports done."""
    found: list[psutil.Process] = []

    def waits() -> bool:
        ours = psutil.Process().children(recursive=True)
        try:
            found[:] = [one for one in ours if "podium.worker.horse" in one.cmdline()]
            # One that imports, or that ends its attempt, is never without work for so long.
            return len(found) == 1 and found[0].memory_info().rss > 100 << 20 and found[0].cpu_percent(0.5) == 0.0
        except psutil.NoSuchProcess:
            return False

    _until(waits)
    return found[0]


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"no idle worker within {_PATIENCE:.0f} s")
        time.sleep(0.1)


def _spec(folder: Path) -> JobSpec:
    half = (0.5, 0.5, 0.5)
    pixels = Preprocessing(image_size=_SIDE, interpolation=Interpolation.BILINEAR, mean=half, std=half)
    return JobSpec(
        backbone="timm/test_resnet",
        tuning=FullFineTuning(),
        dataset=ImageFolder(train=str(folder / "images"), val_fraction=0.2),
        preprocessing=pixels,
        k={1: 0.5, 2: 0.5},
        sorter=Subset(),
        optimizer=AdamW(learning_rate=1e-3),
        epochs=1,
        batch_size=8,
        evaluation=Evaluation(top_k=(1, 2)),
    )


def _make_images(folder: Path) -> None:
    chance = np.random.default_rng(0)
    for label in range(_CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(_EACH):
            pixels = chance.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.png")
