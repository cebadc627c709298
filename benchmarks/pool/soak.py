"""A thousand jobs on eight slots of three machines while something is killed every few seconds, for ten minutes.

The jobs do as scripted (tests/chaos), so nothing is trained; everything else is real: servers, Redis, agents,
supervisors, attempts. Counted is what was promised and is not so, by the ledger and the event stream of every job.
"""

import contextlib
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from benchmarks.rows import Row
from podium.jobs.errors import PodiumError
from podium.jobs.job import Job
from podium.jobs.states import State
from tests.chaos.checks import PROMISES, Wanted
from tests.chaos.rest import gather, litter, unrest
from tests.chaos.script import Script
from tests.chaos.site import Program, Site, Timeout, until
from tests.chaos.watcher import Watcher

MACHINES = {"a": 3, "b": 3, "c": 2}
#: One job of so many needs two slots, with a process for each.
_EVERY_PAIR = 50
#: One job of so many is cancelled while it runs or waits.
_EVERY_CANCELLED = 40
#: One job of so many is watched all along; the others' streams are read when they have ended.
_EVERY_WATCHED = 10
_PACE = (1.0, 3.0)
#: Jobs are stuck when none ends for so many seconds: how long a thousand take depends on the machine.
_SILENCE = 120.0
#: Who is killed how often.
_ODDS = {"attempt": 5, "RQ worker": 2, "node agent": 2, "server": 2, "Redis": 1}


def measure(*, jobs: int = 1000, minutes: float = 10.0, seed: int = 0) -> list[Row]:
    """The rows: jobs that were lost, effects that were doubled, what is stuck, and every other broken promise.

    Args:
        jobs: how many.
        minutes: how long processes are killed.
        seed: of who is killed when.
    """
    with tempfile.TemporaryDirectory(prefix="podium-") as folder, Site(Path(folder) / "s", machines=MACHINES) as site:
        submitted = [_submit(site, number) for number in range(jobs)]
        watchers = {job.id: Watcher(site.servers[0].address, job.id) for job in submitted[::_EVERY_WATCHED]}
        hunt = _Hunt(site, random.Random(seed), minutes)
        hunt.start()
        _cancel_some(site, submitted, hunt)
        hunt.join()
        site.renew_agents()
        stuck = _stuck(site, submitted)
        broken: dict[str, list[str]] = defaultdict(list)
        attempts = 0
        for number, job in enumerate(submitted):
            watcher = watchers.get(job.id) or Watcher(site.servers[0].address, job.id)
            evidence = gather(site, job.id, _wanted(number), [watcher])
            attempts += len(evidence.job.attempts) if evidence.job else 0
            for letter, check in PROMISES.items():
                broken[letter] += [f"{letter}: {job.id}: {sentence}" for sentence in check(evidence)]
        stuck += [*unrest(site), *litter(site)]
    told = ", ".join(f"{count} {name}" for name, count in hunt.killed.most_common())
    what = f"{jobs} jobs on 8 slots, {attempts} attempts; killed in {minutes:g} min: {told}"
    return [
        _row(f"jobs lost: {what}", broken["a"]),
        _row("effects doubled, or of an attempt that no longer held its job", broken["b"]),
        _row("stuck or left behind: jobs, slots, deliveries, processes, folders", stuck),
        _row("other promises broken (c to g)", [word for letter in "cdefg" for word in broken[letter]]),
    ]


class _Hunt(threading.Thread):
    """Kills somebody every few seconds, and starts again what nobody else does.

    Attributes:
        killed: how often who was.
    """

    def __init__(self, site: Site, chance: random.Random, minutes: float) -> None:
        super().__init__(name="hunt")
        self._site, self._chance, self._seconds = site, chance, 60 * minutes
        self.killed: Counter[str] = Counter()

    def run(self) -> None:
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            (name,) = self._chance.choices(list(_ODDS), list(_ODDS.values()))
            if (victim := self._find(name)) is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._chance.choice((victim.kill, victim.terminate))()
                    self.killed[name] += 1
            time.sleep(self._chance.uniform(*_PACE))
            self._site.restart()

    def _find(self, name: str) -> psutil.Process | None:
        site = self._site
        if name == "Redis":
            return site.redis.process
        running = [one.process for one in self._programs(name) if one.alive] or site.processes(_MODULES.get(name, "-"))
        return self._chance.choice(running) if running else None

    def _programs(self, name: str) -> Sequence[Program]:
        site = self._site
        found: Mapping[str, Sequence[Program]] = {"server": site.servers, "node agent": list(site.agents.values())}
        return found.get(name, ())


_MODULES = {"attempt": "podium.worker.horse", "RQ worker": "podium.worker.slot"}


def _submit(site: Site, number: int) -> Job:
    script = Script(steps=20, pause=0.12, save=5)
    return site.submit(script, gpus=2 if number % _EVERY_PAIR == 1 else 1)


def _wanted(number: int) -> Wanted:
    ends = {State.SUCCEEDED, State.CANCELLED} if _is_cancelled(number) else {State.SUCCEEDED}
    return Wanted(states=frozenset(ends), steps=20, interval=5)


def _is_cancelled(number: int) -> bool:
    return number % _EVERY_CANCELLED == 2


def _cancel_some(site: Site, submitted: Sequence[Job], hunt: _Hunt) -> None:
    """Cancels its share of jobs, each as it begins to run, as long as there is hunting."""
    waiting = [job.id for number, job in enumerate(submitted) if _is_cancelled(number)]
    while waiting and hunt.is_alive():
        time.sleep(0.2)
        with contextlib.suppress(PodiumError):  # Redis or the server is away, or the job has ended: look again
            state = site.client.get(waiting[0]).state
            if state is State.RUNNING:
                site.client.job(waiting[0]).cancel("enough of it")
            if state not in (State.QUEUED, State.STARTING):
                waiting.pop(0)


def _stuck(site: Site, submitted: Sequence[Job]) -> list[str]:
    """The jobs that do not come to an end."""
    with contextlib.suppress(Timeout):
        while unfinished := _unfinished(site):
            until(partial(_fewer, site, unfinished), "an end", _SILENCE)
    left = [site.store.get(job.id) for job in submitted]
    return [f"{job.id} is {job.state.name}: {job.state_reason}" for job in left if not job.terminal]


def _fewer(site: Site, than: int) -> bool:
    return _unfinished(site) < than


def _unfinished(site: Site) -> int:
    line = site.store.pending("default")
    holders = [job.id for job, _, _ in site.store.holding()]
    # The line again: a job may have gone back to it after the first look.
    return len({*line, *holders, *site.store.pending("default")})


def _row(what: str, violations: Sequence[str]) -> Row:
    for sentence in violations[:20]:
        print(sentence)
    return Row(what=what, ours=str(len(violations)), peer="0", ratio=len(violations), bar="0")
