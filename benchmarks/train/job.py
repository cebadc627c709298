"""A full fine-tuning job against a bare PyTorch loop: the same model, images, batch, loss and precision.

The job is an attempt as a worker runs it, with its ledger, its writer and its heartbeat; the ledger is in memory. The
bare loop reads the same files through torchvision's ImageFolder and a DataLoader with one worker, as the job has one
thread for them. The limit is the same loop with its images as tensors, ready for the model: no service, no data, no
evaluation. Steps are timed from the start of one to the start of the next. Each run has a process of its own, whose
peak memory is compared with the limit's. `python -m benchmarks.train.job job|bare|limit FOLDER` is such a run.
"""

import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.rows import Row, ratios, turns
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.settings import Settings
from podium.jobs.spec import (
    AdamW,
    Evaluation,
    FullFineTuning,
    ImageFolder,
    Interpolation,
    JobSpec,
    OddEven,
    Preprocessing,
)
from podium.jobs.store import Leases, MemoryStore, NewJob
from podium.worker.stop import StopFlag

_CLASSES, _SIDE, _BATCH, _EPOCHS = 10, 96, 32, 2
_IMAGES = 16 * _BATCH
_TRAIN = _IMAGES - _IMAGES // 16
_BACKBONE = "resnet18"


def rows(folder: Path, count: int) -> list[Row]:
    """Speed and peak memory, medians of so many turns."""
    _make_images(folder / "train")
    found: dict[str, list[dict[str, float]]] = {"job": [], "bare": [], "limit": []}

    def run(kind: str) -> float:
        found[kind].append(_in_process(kind, folder))
        return found[kind][-1]["images_per_second"]

    ours, bare, limit = turns(count, *(functools.partial(run, kind) for kind in found))
    peaks = {kind: statistics.median(one["peak"] for one in runs) for kind, runs in found.items()}
    what = f"{_BACKBONE}, {_SIDE} px, batch {_BATCH}: a job against"
    return [
        _speed(f"{what} a bare loop, images/s", ours, bare, ">= 0.98"),
        _speed(f"{what} a loop whose images are ready tensors, images/s", ours, limit, ""),
        Row(
            what=f"{what} a loop whose images are ready tensors, peak memory",
            ours=f"{peaks['job'] / 2**20:.0f} MiB",
            peer=f"{peaks['limit'] / 2**20:.0f} MiB",
            ratio=peaks["job"] / peaks["limit"],
            bar="<= 1.05",
        ),
    ]


def _speed(what: str, ours: list[float], peers: list[float], bar: str) -> Row:
    ratio, spread = ratios(ours, peers)
    return Row(
        what=what,
        ours=f"{statistics.median(ours):.1f}",
        peer=f"{statistics.median(peers):.1f}",
        ratio=ratio,
        bar=bar,
        spread=spread,
    )


def _in_process(kind: str, folder: Path) -> dict[str, float]:
    command = (sys.executable, "-m", "benchmarks.train.job", kind, str(folder))
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def _make_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(_IMAGES):
        name = folder / f"class{number % _CLASSES}" / f"{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        if not name.exists():
            Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)).save(name)


def _spec(folder: Path) -> JobSpec:
    return JobSpec(
        backbone=_BACKBONE,
        tuning=FullFineTuning(),
        # The validation split, and with it the time between epochs, is small.
        dataset=ImageFolder(train=str(folder / "train"), val_fraction=1 / 16),
        preprocessing=Preprocessing(
            image_size=_SIDE,
            crop_fraction=1.0,
            interpolation=Interpolation.BILINEAR,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        k={1: 0.5, 5: 0.5},
        m=9,
        sorter=OddEven(),
        optimizer=AdamW(),
        epochs=_EPOCHS,
        batch_size=_BATCH,
        evaluation=Evaluation(top_k=(1, 5)),
    )


def _job(folder: Path) -> list[float]:
    """The times at which steps began, one list for all epochs; None between epochs."""
    import podium.worker.entry  # noqa: F401  # as the real process has imported it
    from podium.worker.attempt import Attempt
    from podium.worker.fit import step

    begun: list[float] = []
    at_once = step.Stepper.step

    def timed(self: step.Stepper, at: int, *arguments: Any) -> step.Outcome:
        begun.append(time.perf_counter())
        return at_once(self, at, *arguments)

    step.Stepper.step = timed  # type: ignore[method-assign, assignment]  # looked on
    store, artifacts = MemoryStore(), folder / "artifacts"
    settings = Settings(
        redis_url="",
        redis_password=None,
        artifacts=str(artifacts),
        data_roots=(),
        leases=Leases(),
    )
    store.heartbeat(Node(id="n", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
    classes = tuple(sorted(path.name for path in (folder / "train").iterdir()))
    created = store.create(NewJob(project="p", spec=_spec(folder), classes=classes))[0]
    assignment = store.dispatch(created.id, "n", 0)
    Attempt(store, ArtifactStore(str(artifacts)), assignment, settings, StopFlag(), threads=1).run()
    ended = store.get(created.id)
    if ended.error is not None:
        raise SystemExit(ended.error.message + ended.error.traceback)
    return begun


Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


def _bare(folder: Path) -> list[float]:
    import torchvision
    from torchvision import transforms

    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    dataset = torchvision.datasets.ImageFolder(
        str(folder / "train"), transforms.Compose([transforms.ToTensor(), normalize])
    )
    train = torch.utils.data.Subset(dataset, range(_TRAIN))
    loader = torch.utils.data.DataLoader(
        train, _BATCH, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True
    )
    return _loop(lambda _: iter(loader))


def _limit(_folder: Path) -> list[float]:
    images = torch.randn(_TRAIN, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(_TRAIN) % _CLASSES

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(_TRAIN))
        for batch in order[: _TRAIN // _BATCH * _BATCH].view(-1, _BATCH):
            yield images[batch], labels[batch]

    return _loop(batches)


def _loop(batches: Batches) -> list[float]:
    import torchvision

    from podium.topk import OddEven as OddEvenNetwork
    from podium.topk import TopKCrossEntropy

    model = torchvision.models.get_model(_BACKBONE, num_classes=_CLASSES).to(memory_format=torch.channels_last)
    loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=OddEvenNetwork(), m=9)
    optimizer = torch.optim.AdamW(model.parameters())
    begun = []
    for epoch in range(_EPOCHS):
        for images, labels in batches(epoch):
            begun.append(time.perf_counter())
            value = loss(model(images.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
    return begun


def _per_second(begun: list[float]) -> float:
    """The images a second of the median step; the steps between epochs are among the slow ones, and do not count."""
    return _BATCH / statistics.median(after - before for before, after in pairwise(begun))


def main() -> None:
    """One run, in this process."""
    kind, folder = sys.argv[1:]
    torch.set_num_threads(1)
    begun = {"job": _job, "bare": _bare, "limit": _limit}[kind](Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"images_per_second": _per_second(begun), "peak": peak}))


if __name__ == "__main__":
    main()
