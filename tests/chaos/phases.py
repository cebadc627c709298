"""Bringing a job to where it is to be hit, and from there to its end.

A phase is reached by what the script of the job says and by looking at the ledger and the job's folders. "Held" is a
job that waits until it is let go. Where an answer of the ledger is to be outstanding, Redis is stopped for the moment.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

from podium.jobs.job import Job
from podium.jobs.states import State
from tests.chaos.checks import Wanted
from tests.chaos.matrix import Blow, Case, Phase, Target
from tests.chaos.script import Script
from tests.chaos.site import Program, Redis, Site, stop, until
from tests.chaos.watcher import Watcher

_STEPS, _INTERVAL, _PAUSE = 30, 5, 0.02
_PLAIN = Script(steps=_STEPS, pause=_PAUSE, save=_INTERVAL)
#: So long a stopped process is left, in seconds.
STOPPED_FOR = 10.0


@dataclass
class Scene:
    """A site, the jobs of a case, and what has to be undone.

    Attributes:
        site: where.
        wanted: by job id, what is to become of it.
        watchers: by job id.
        paused: to be resumed.
    """

    site: Site
    wanted: dict[str, Wanted] = field(default_factory=dict)
    watchers: dict[str, list[Watcher]] = field(default_factory=dict)
    paused: list[Job] = field(default_factory=list)

    def submit(
        self, script: Script, *, gpus: int = 1, ends: State = State.SUCCEEDED, damaged: int = 0, **changes: object
    ) -> Job:
        """A job that is watched from every server, from its first event on; `changes` are parts of its spec."""
        job = self.site.submit(script, gpus=gpus, **changes)
        self.wanted[job.id] = Wanted(
            states=frozenset({ends}), steps=script.steps, interval=script.save, damaged=damaged
        )
        self.watchers[job.id] = [Watcher(server.address, job.id) for server in self.site.servers]
        return job


@dataclass(frozen=True)
class Victim:
    """Who is hit."""

    process: psutil.Process
    program: Program | Redis | None = None
    """What the harness has to start again; the rest is somebody else's duty."""


@contextlib.contextmanager
def reached(scene: Scene, case: Case) -> Iterator[Victim]:
    """The job is where it is to be hit while the block runs; then it is let go."""
    gpus = 2 if case.target is Target.RANK else 1
    match case.phase:
        case Phase.QUEUED:
            yield from _queued(scene, case)
        case Phase.STARTING:
            yield from _starting_ranks(scene, case) if gpus > 1 else _starting(scene, case)
        case Phase.STEP:
            yield from _held(scene, case, Script(steps=_STEPS, pause=_PAUSE, save=_INTERVAL, hold_step=8), gpus)
        case Phase.SAVE:
            yield from _held(scene, case, Script(steps=_STEPS, pause=_PAUSE, save=_INTERVAL, hold_save=10), gpus)
        case Phase.COMMIT:
            yield from _committing(scene, case, gpus)
        case Phase.FINISHING:
            yield from _finishing(scene, case, gpus)
        case Phase.CANCELLING:
            yield from _cancelling(scene, case, gpus)
        case Phase.PAUSING:
            yield from _pausing(scene, case, gpus)


def victim(site: Site, target: Target, job: Job) -> Victim:
    """The process that is hit, now."""
    if target is Target.REDIS:
        return Victim(site.redis.process, site.redis)
    if target in (Target.SERVER, Target.LEADER):
        leader = site.leader()
        server = leader if target is Target.LEADER else next(one for one in site.servers if one is not leader)
        return Victim(server.process, server)
    attempt = site.store.get(job.id).attempts[-1]
    match target:
        case Target.AGENT:
            return Victim(site.agents[attempt.node].process, site.agents[attempt.node])
        case Target.SLOT:
            return Victim(site.of_slot("podium.worker.slot", attempt.node, attempt.slot))
        case Target.HORSE:
            return Victim(site.of_slot("podium.worker.horse", attempt.node, attempt.slot))
    return Victim(site.rank(0))


def _queued(scene: Scene, case: Case) -> Iterator[Victim]:
    site = scene.site
    before = [
        scene.submit(Script(steps=_STEPS, pause=_PAUSE, save=_INTERVAL, hold_step=8))
        for _ in range(sum(site.machines.values()))
    ]
    until(lambda: all(map(site.held, before)), "other jobs to hold all slots")
    job = scene.submit(_PLAIN)
    until(lambda: site.store.get(job.id).state is State.QUEUED, "a job in line")
    yield victim(site, case.target, before[0])
    for other in before:
        site.let_go(other)


def _starting(scene: Scene, case: Case) -> Iterator[Victim]:
    site = scene.site
    spares = site.processes("podium.worker.horse")
    for spare in spares:
        stop(spare)
    job = scene.submit(_PLAIN)
    until(lambda: site.store.get(job.id).state is State.STARTING and site.handed_over(job), "a job to be handed over")
    hit = victim(site, case.target, job)
    yield hit
    for spare in spares:
        if spare != hit.process or case.blow is not Blow.STOP:
            with contextlib.suppress(psutil.NoSuchProcess):
                spare.resume()


def _starting_ranks(scene: Scene, case: Case) -> Iterator[Victim]:
    job = scene.submit(_PLAIN, gpus=2)
    until(lambda: scene.site.store.get(job.id).state is State.RUNNING, "a job of two ranks to run")
    yield victim(scene.site, case.target, job)


def _held(scene: Scene, case: Case, script: Script, gpus: int) -> Iterator[Victim]:
    job = scene.submit(script, gpus=gpus)
    until(lambda: scene.site.held(job), "the job to be where it is to be hit")
    yield victim(scene.site, case.target, job)
    scene.site.let_go(job)


def _committing(scene: Scene, case: Case, gpus: int) -> Iterator[Victim]:
    site = scene.site
    job = scene.submit(Script(steps=_STEPS, pause=_PAUSE, save=_INTERVAL, hold_save=10), gpus=gpus)
    until(lambda: site.held(job), "a checkpoint to be half written")
    hit = victim(site, case.target, job)
    before = set(_committed(site, job))
    with _redis_stopped(site, case):
        site.let_go(job)
        until(lambda: set(_committed(site, job)) - before, "a checkpoint to be on the disk")
        yield hit


def _finishing(scene: Scene, case: Case, gpus: int) -> Iterator[Victim]:
    site = scene.site
    job = scene.submit(Script(steps=_STEPS, pause=_PAUSE, save=_INTERVAL, hold_end=True), gpus=gpus)
    until(lambda: site.held(job), "all steps to be done")
    hit = victim(site, case.target, job)
    with _redis_stopped(site, case):
        site.let_go(job)
        until(lambda: (site.scratch(job) / "left").exists(), "the trainer to return")
        yield hit


def _cancelling(scene: Scene, case: Case, gpus: int) -> Iterator[Victim]:
    site = scene.site
    script = Script(steps=3000, pause=_PAUSE, save=_INTERVAL, hold_stop=True)
    job = scene.submit(script, gpus=gpus, ends=State.CANCELLED)
    until(lambda: site.store.checkpoints(job.id), "a first checkpoint")
    site.client.job(job.id).cancel("the test said so")
    until(lambda: site.held(job), "the checkpoint of a cancelled job to be half written")
    yield victim(site, case.target, job)
    site.let_go(job)


def _pausing(scene: Scene, case: Case, gpus: int) -> Iterator[Victim]:
    site = scene.site
    # The wish is heard with the next sign of life, before the last step also where all is slow.
    job = scene.submit(Script(steps=400, pause=_PAUSE, save=_INTERVAL, hold_stop=True), gpus=gpus)
    until(lambda: site.store.checkpoints(job.id), "a first checkpoint")
    site.client.job(job.id).pause("the test said so")
    until(lambda: site.held(job), "the checkpoint of a paused job to be half written")
    yield victim(site, case.target, job)
    site.let_go(job)
    scene.paused.append(job)


def _committed(site: Site, job: Job) -> list[str]:
    folder = site.artifacts.root / "jobs" / job.id / "checkpoints"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@contextlib.contextmanager
def _redis_stopped(site: Site, case: Case) -> Iterator[None]:
    """Redis answers nobody; unless it is to stay so, it goes on after the block."""
    process = site.redis.process
    stop(process)
    struck = False
    try:
        yield
        struck = True
    finally:
        if not (struck and case.target is Target.REDIS and case.blow is Blow.STOP):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def strike(hit: Victim, blow: Blow) -> None:
    """Sends the signal."""
    match blow:
        case Blow.TERM:
            hit.process.terminate()
        case Blow.KILL:
            hit.process.kill()
        case Blow.STOP:
            hit.process.suspend()


def recover(scene: Scene, hit: Victim, blow: Blow) -> None:
    """What an operator, systemd or the passing of time does next."""
    if blow is Blow.STOP:
        time.sleep(STOPPED_FOR)
        with contextlib.suppress(psutil.NoSuchProcess):  # ended by whoever waited for it in vain
            hit.process.send_signal(signal.SIGCONT)
    elif hit.program is not None:
        until(lambda: not hit.program.alive, "what was hit to end", seconds=40)  # type: ignore[union-attr]  # looked at
    scene.site.heal()
    for job in scene.paused:
        until(lambda: scene.site.store.get(job.id).state is State.PAUSED, "a paused job to be PAUSED")  # noqa: B023  # used at once
        scene.site.client.job(job.id).resume()
