"""The real trainer, killed in the middle: what it hands over is, to the bit, what an uninterrupted run hands over."""

from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from podium.jobs.job import Job
from podium.jobs.spec import AdamW, CheckpointPolicy, Evaluation, Resources
from podium.jobs.states import State
from podium.jobs.store import Leases
from tests.chaos.checks import PROMISES, Wanted
from tests.chaos.rest import gather, unrest
from tests.chaos.site import Site, stop, until
from tests.chaos.watcher import Watcher
from tests.tiny import tiny_images, tiny_spec

#: 24 images, 18 of them for training, in batches of 6.
_EPOCHS, _STEPS = 20, 60
#: Steps from checkpoint to checkpoint.
INTERVAL = 6
#: The checks that do not read the scripted trainer's states.
_OF_ANY_TRAINER = "abcdeg"
_PATIENCE = 240.0
#: An attempt may begin only when its process has imported torch.
_LEASES = Leases(attempt=6, starting=60, node=6, grace=30)


def real_training_on_one_slot(folder: Path) -> list[str]:
    """The attempt's process, its agent and its machine's whole family, mid-step and mid-save."""
    with Site(folder, machines={"a": 1}, servers=1, trainer=None, leases=_LEASES) as site:
        wanted = _product(site, _trained(site, gpus=1))
        found = []
        for name, kill in {
            "attempt, mid-step": lambda job: _kill(_horse(site, job)),
            "attempt, mid-save": lambda job: _kill_in_save(site, job, _horse(site, job)),
            "node agent, mid-step": lambda job: _kill(site.agents["a"].process),
            "node agent, mid-save": lambda job: _kill_in_save(site, job, site.agents["a"].process),
        }.items():
            found += [f"{name}: {word}" for word in _interrupted(site, kill, wanted, gpus=1)]
        return found


def real_training_on_two_ranks(folder: Path) -> list[str]:
    """Rank 1 mid-step, and rank 0, which writes the checkpoints, mid-save."""
    with Site(folder, machines={"a": 2}, servers=1, trainer=None, leases=_LEASES) as site:
        wanted = _product(site, _trained(site, gpus=2))
        found = []
        for name, kill in {
            "rank 1, mid-step": lambda _: _kill(site.rank(1)),
            "rank 0, mid-save": lambda job: _kill_in_save(site, job, site.rank(0)),
        }.items():
            found += [f"{name}: {word}" for word in _interrupted(site, kill, wanted, gpus=2)]
        return found


#: By what they are called in the table.
DEPTH: Mapping[str, Callable[[Path], list[str]]] = {
    function.__name__.replace("_", " "): function
    for function in (real_training_on_one_slot, real_training_on_two_ranks)
}


def _interrupted(site: Site, kill: Callable[[Job], object], product: str, *, gpus: int) -> list[str]:
    """A job is hit once it has trained beyond its second checkpoint; what is wrong with what becomes of it."""
    job = submit(site, gpus=gpus)
    watcher = Watcher(site.servers[0].address, job.id)
    until(lambda: _step(site, job) > 2 * INTERVAL, "some steps", _PATIENCE)
    kill(job)
    site.heal()
    until(lambda: site.store.get(job.id).terminal, "the end", _PATIENCE)
    evidence = gather(site, job.id, Wanted(steps=_STEPS, interval=INTERVAL), [watcher])
    found = [f"{letter}: {word}" for letter in _OF_ANY_TRAINER for word in PROMISES[letter](evidence)]
    if evidence.job is not None and len(evidence.job.attempts) < 2:
        found.append("it was never interrupted")
    if not found and _product(site, site.store.get(job.id)) != product:
        found.append("f: the weights are not those of the uninterrupted run")
    return [*found, *unrest(site)]


def _trained(site: Site, *, gpus: int) -> Job:
    """A job that nothing interrupts."""
    job = submit(site, gpus=gpus)
    until(lambda: site.store.get(job.id).terminal, "the uninterrupted run", _PATIENCE)
    done = site.store.get(job.id)
    assert done.state is State.SUCCEEDED, done.error
    return done


def submit(site: Site, *, gpus: int, epochs: int = _EPOCHS) -> Job:
    """A job that is trained for real, three steps an epoch, on a tiny model."""
    images = site.folder / "images"
    if not images.exists():
        tiny_images(images)
    spec = tiny_spec(
        str(images),
        optimizer=AdamW(learning_rate=3e-3),
        epochs=epochs,
        evaluation=Evaluation(top_k=(1, 2), every_epochs=10),
        checkpoints=CheckpointPolicy(every_steps=INTERVAL),
        resources=Resources(gpus=gpus),
    )
    return site.client.submit(spec).job()


def _step(site: Site, job: Job) -> int:
    progress = site.store.get(job.id).progress
    return progress.step if progress else 0


def _horse(site: Site, job: Job) -> psutil.Process:
    attempt = site.store.get(job.id).attempts[-1]
    return site.of_slot("podium.worker.horse", attempt.node, attempt.slot)


def _kill_in_save(site: Site, job: Job, process: psutil.Process) -> None:
    """Kills while a checkpoint is half written: the one who writes is stopped when its folder appears."""
    writer = site.rank(0) if job.spec.resources.gpus > 1 else _horse(site, job)
    staging = site.artifacts.root / "jobs" / job.id / "tmp"

    def half_written() -> bool:
        if not _unfinished(staging):
            return False
        stop(writer)
        if not _unfinished(staging):
            writer.resume()
            return False
        return True

    until(half_written, "a checkpoint to be half written", _PATIENCE)
    _kill(process)
    if process != writer:
        writer.resume()


def _kill(process: psutil.Process) -> None:
    process.kill()
    # A process with threads is a zombie some time before it can be waited for, and counts as alive until then.
    process.wait(30)


def _unfinished(staging: Path) -> bool:
    return any(not (folder / "MANIFEST.json").exists() for folder in staging.iterdir())


def _product(site: Site, job: Job) -> str:
    """The digest of the weights that a job has handed over."""
    last = site.store.checkpoints(job.id)[-1]
    return next(file.sha256 for file in last.files if file.name == "model.safetensors")
