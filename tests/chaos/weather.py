"""What happens to a whole site rather than to one process: Redis away or slow, storage full, slow or damaged, faults.

Each case is a function that makes a site of its own kind in a folder, and returns what was promised and is not so.
"""

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from podium.jobs.events import Level, LogBatch, LogLine
from podium.jobs.job import Cause, Job
from podium.jobs.states import State
from tests.chaos import chain
from tests.chaos.phases import Scene
from tests.chaos.proxy import Proxy
from tests.chaos.rest import events
from tests.chaos.run import judge
from tests.chaos.script import Script
from tests.chaos.site import Site, until

_SCRIPT = Script(steps=60, pause=0.05, save=5)


def redis_is_restarted(folder: Path) -> list[str]:
    """Killed and started again, three times, while jobs train and wait."""
    with Site(folder) as site:
        scene = Scene(site)
        jobs = [scene.submit(_SCRIPT) for _ in range(6)]
        for reached in (5, 20, 40):
            until(lambda: any(_step(site, job) >= reached for job in jobs), f"step {reached}")  # noqa: B023  # used at once
            site.redis.restart()
        return judge(scene)


def redis_is_away_for_60_seconds(folder: Path) -> list[str]:
    """An attempt goes on training without it, and is not replaced when it is back."""
    with Site(folder) as site:
        scene = Scene(site)
        job = scene.submit(Script(steps=700, pause=0.1, save=100))
        for _ in range(4):
            scene.submit(_SCRIPT)
        until(lambda: _step(site, job) >= 5, "a step")
        site.redis.kill()
        time.sleep(60)
        site.redis.start()
        until(lambda: site.store.get(job.id).terminal, "the end", 120)
        after = site.store.get(job.id)
        replaced = [] if len(after.attempts) == 1 else [f"an attempt that lived was replaced: {_outcomes(after)}"]
        return replaced + judge(scene)


def redis_is_slow(folder: Path) -> list[str]:
    """Every answer comes 200 ms late."""
    with _behind_a_proxy(folder) as (site, proxy):
        scene = Scene(site)
        proxy.delay = 0.2
        for _ in range(4):
            scene.submit(_SCRIPT)
        return judge(scene)


def connections_are_cut(folder: Path) -> list[str]:
    """Every second all connections to Redis end, wherever they are, eight times; then nothing gets through for 10 s."""
    with _behind_a_proxy(folder) as (site, proxy):
        scene, chance = Scene(site), random.Random(0)
        jobs = [scene.submit(replace(_SCRIPT, steps=200)) for _ in range(3)]
        until(lambda: any(_step(site, job) >= 5 for job in jobs), "a step")
        for _ in range(8):
            time.sleep(chance.uniform(0.5, 1.5))
            proxy.cut()
        proxy.hold()
        time.sleep(10)
        proxy.release()
        return judge(scene)


def the_disk_is_full(folder: Path) -> list[str]:
    """The job that finds no room says so in its attempts, and goes on once there is room; others need none."""
    with _small_disk(folder / "disk") as disk, Site(folder, artifacts=disk / "artifacts") as site:
        scene = Scene(site)
        job = scene.submit(Script(steps=30, pause=0.02, save=5, size=100_000, hold_step=8))
        until(lambda: site.held(job), "a first checkpoint")
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(4096))
        site.let_go(job)
        until(lambda: site.store.get(job.id).attempts[0].end_time, "the storage to refuse")
        ballast.unlink()
        cause = site.store.get(job.id).attempts[0].cause
        wrong = [] if cause is Cause.STORAGE else [f"a full disk was told as {cause}"]
        return wrong + judge(scene)


def writing_is_slow(folder: Path) -> list[str]:
    """A checkpoint takes three leases to write, and nobody minds."""
    with Site(folder) as site:
        scene = Scene(site)
        job = scene.submit(Script(steps=10, pause=0.02, save=5, slow_save=12))
        found = judge(scene)
        after = site.store.get(job.id)
        return found if len(after.attempts) == 1 else [*found, f"it was replaced: {_outcomes(after)}"]


def a_checkpoint_is_truncated(folder: Path) -> list[str]:
    """The one before it is used, and the job's log says so."""
    with Site(folder) as site:
        scene = Scene(site)
        job = scene.submit(Script(steps=30, pause=0.02, save=5, hold_step=18), damaged=1)
        until(lambda: site.held(job), "three checkpoints")
        newest = site.store.checkpoints(job.id)[-1]
        path = site.artifacts.root / "jobs" / job.id / "checkpoints" / newest.id / chain.FILE
        path.write_bytes(path.read_bytes()[:-1])
        attempt = site.store.get(job.id).attempts[-1]
        site.of_slot("podium.worker.horse", attempt.node, attempt.slot).kill()
        site.let_go(job)
        found = judge(scene)
        warned = [line for line in _log(site, job) if line.level is Level.WARNING and newest.id in line.text]
        return found if warned else [*found, "the job's log does not say that a checkpoint was passed over"]


def scripted_faults(folder: Path) -> list[str]:
    """Each of them ends as its cause says: at once, after another attempt, or after several."""
    with Site(folder) as site:
        scene = Scene(site)
        plain = Script(steps=20, pause=0.01, save=5)
        once = replace(plain, once=True)
        fails = {
            scene.submit(replace(plain, nan=12), ends=State.FAILED).id: Cause.NON_FINITE,
            scene.submit(replace(plain, oom=9), ends=State.FAILED).id: Cause.OOM_HOST,
        }
        for script in (replace(once, crash=7), replace(once, crash_in_save=10)):
            scene.submit(script)
        hangs = scene.submit(replace(once, hang=7), stall_timeout_seconds=3)
        found = judge(scene)
        if (cause := site.store.get(hangs.id).attempts[0].cause) is not Cause.STALLED:
            found.append(f"{hangs.id} hung, which was told as {cause}")
        if not any("in _fail" in line.text for line in _log(site, hangs)):
            found.append(f"the log of {hangs.id} does not say where it hung")
        for job_id, cause in fails.items():
            error = site.store.get(job_id).error
            if error is None or error.cause is not cause:
                found.append(f"{job_id} failed for {error.cause if error else None} and not for {cause}")
        return found


#: By what they are called in the table.
WEATHER: Mapping[str, Callable[[Path], list[str]]] = {
    function.__name__.replace("_", " "): function
    for function in (
        redis_is_restarted,
        redis_is_away_for_60_seconds,
        redis_is_slow,
        connections_are_cut,
        the_disk_is_full,
        writing_is_slow,
        a_checkpoint_is_truncated,
        scripted_faults,
    )
}


def _step(site: Site, job: Job) -> int:
    progress = site.store.get(job.id).progress
    return progress.step if progress else 0


def _log(site: Site, job: Job) -> list[LogLine]:
    batches = [event.payload for event in events(site, job.id) if isinstance(event.payload, LogBatch)]
    return [line for batch in batches for line in batch.lines]


def _outcomes(job: Job) -> list[str]:
    return [attempt.outcome for attempt in job.attempts]


@contextlib.contextmanager
def _behind_a_proxy(folder: Path) -> Iterator[tuple[Site, Proxy]]:
    with contextlib.closing(Proxy(folder / "redis.sock")) as proxy, Site(folder, redis_url=proxy.url) as site:
        yield site, proxy


@contextlib.contextmanager
def _small_disk(path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; needs root."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
        shutil.rmtree(path)
