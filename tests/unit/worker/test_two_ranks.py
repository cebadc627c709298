"""Two ranks in processes of their own: what they train and measure together is what one alone would."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from podium.jobs import wire
from podium.jobs.job import Job
from podium.jobs.spec import Augmentation, Evaluation, ImageFolder, Sgd, Weights
from podium.worker.fit import run
from podium.worker.fit.local import LocalContext
from podium.worker.fit.world import World
from podium.worker.job_context import Stopped, StopReason

CPU = torch.device("cpu")


def _train(rank: int, folder: Path) -> None:
    """What a rank does: the jobs in the folder, one after the other, each stopped after every so many questions."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    world = World(device=CPU, rank=rank, size=2)
    for name, patience in json.loads((folder / "jobs.json").read_text()).items():
        job = wire.from_bytes(Job, (folder / f"{name}.job").read_bytes())
        context = LocalContext(folder / name)
        while not _done(job, context, world, patience):
            pass
        if world.first:
            (folder / f"{name}.json").write_text(json.dumps(context.metrics))
    distributed.barrier()


def _done(job: Job, context: LocalContext, world: World, patience: int) -> bool:
    asked = 0

    def should_stop() -> StopReason | None:
        nonlocal asked
        asked += 1
        return StopReason.DRAINED if asked == patience else None

    context.should_stop = should_stop  # type: ignore[method-assign]  # asks by a plan
    try:
        run(job, context, device=CPU, threads=1, world=world)
    except Stopped:
        # Whoever comes back must find the checkpoint that rank 0 writes.
        distributed.barrier()
        return False
    return True


def _together(folder: Path, jobs: Mapping[str, tuple[Job, int]]) -> dict[str, dict[str, dict[int, float]]]:
    """Has two ranks do the jobs; the metrics of each."""
    for name, (job, _) in jobs.items():
        (folder / f"{name}.job").write_bytes(wire.to_bytes(job))
    (folder / "jobs.json").write_text(json.dumps({name: patience for name, (_, patience) in jobs.items()}))
    subprocess.run([sys.executable, __file__, str(folder)], check=True, timeout=400)
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in jobs}
    return {
        name: {metric: {int(step): value for step, value in points.items()} for metric, points in told.items()}
        for name, told in found.items()
    }


def _model(root: Path) -> dict[str, torch.Tensor]:
    saved = LocalContext(root).newest()
    assert saved is not None
    return load_file(saved.folder / "model.safetensors")


def test_two_ranks_train_and_measure_what_one_alone_would_and_what_is_saved(images, job, tmp_path):
    # Of 9 images to validate and 15 to test, the last batch has no equal shares for two: 1 image, or 7.
    dataset = ImageFolder(train=images("train", each=7), test=images("test", each=5), val=images("val", each=3))
    # Without batch normalisation, which sees each rank's share for itself.
    plain = job(
        dataset.train, dataset=dataset, backbone="timm/test_vit", optimizer=Sgd(learning_rate=0.1), batch_size=8
    )
    everything = job(
        dataset.train,
        dataset=dataset,
        batch_size=8,
        ema_decay=0.9,
        accumulation_steps=2,
        augmentation=Augmentation(horizontal_flip=True, mixup_alpha=0.2),
        evaluation=Evaluation(top_k=(1, 2), monitor="loss", every_steps=2),
    )
    alone = LocalContext(tmp_path / "alone")
    run(plain, alone, device=CPU, threads=1)

    told = _together(tmp_path, {"plain": (plain, 0), "whole": (everything, 0), "stopped": (everything, 5)})

    assert told["plain"].keys() == alone.metrics.keys()
    for metric in told["plain"].keys() - {"data/wait"}:
        assert told["plain"][metric] == pytest.approx(alone.metrics[metric], abs=1e-4), metric
    together = _model(tmp_path / "plain")
    assert all(torch.allclose(value, together[name], atol=1e-5) for name, value in _model(alone.root).items())

    stopped = _model(tmp_path / "stopped")
    assert all(torch.equal(value, stopped[name]) for name, value in _model(tmp_path / "whole").items())
    for metric in told["whole"].keys() - {"data/wait"}:
        assert told["stopped"][metric] == told["whole"][metric], metric

    _assert_measured_as_saved(everything, tmp_path / "whole", told["whole"])


def _assert_measured_as_saved(job: Job, root: Path, told: dict[str, dict[int, float]]) -> None:
    """The metrics of two ranks are those that one has of the model in their last checkpoint."""
    saved = LocalContext(root).newest()
    assert saved is not None
    wanted = replace(job, spec=replace(job.spec, weights=Weights(checkpoint=str(saved.step)), epochs=1))
    once_more = LocalContext(root)
    once_more.newest = lambda: None  # type: ignore[method-assign]  # so that it does not resume
    run(wanted, once_more, device=CPU, threads=1)

    best = json.loads((saved.folder / "config.json").read_text())["step"]
    for split, step in (("val", best), ("test", saved.step)):
        for metric in ("loss", "top1", "calibration_error"):
            (measured,) = once_more.metrics[f"{split}_untouched/{metric}"].values()
            assert measured == pytest.approx(told[f"{split}/{metric}"][step], abs=1e-5)


if __name__ == "__main__":
    # A fork of what has imported everything and run nothing.
    other = os.fork()
    _train(0 if other else 1, Path(sys.argv[1]))
    if other:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
