"""From the loss of a machine, everything on it killed at once, to training again on another.

The real trainer, a tiny model. The leases are the defaults: nobody knows that a machine is lost before they are over.
"""

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row
from podium.jobs.events import MetricBatch
from podium.jobs.job import Job
from podium.jobs.states import State
from podium.jobs.store import Leases
from tests.chaos.depth import INTERVAL, submit
from tests.chaos.rest import events
from tests.chaos.site import Site, until

_LEASES = Leases()
_BAR = 5.0
_PATIENCE = 240.0


def measure(*, turns: int = 3) -> list[Row]:
    """The rows: seconds beyond the attempt's lease, and steps that were repeated beyond one checkpoint interval.

    Args:
        turns: how many machines are lost, one after the other.
    """
    machines = {"a": 1, "b": 1}
    with (
        tempfile.TemporaryDirectory(prefix="podium-") as folder,
        Site(Path(folder) / "s", machines=machines, servers=1, trainer=None, leases=_LEASES) as site,
    ):
        found = [_lose_a_machine(site) for _ in range(turns)]
    late = [seconds - _LEASES.attempt for seconds, _ in found]
    repeated = [steps for _, steps in found]
    median = statistics.median(seconds for seconds, _ in found)
    return [
        Row(
            what=f"SIGKILL of a machine's processes to the first step elsewhere, lease {_LEASES.attempt:.0f} s",
            ours=f"{median:.1f} s",
            peer=f"{_LEASES.attempt + _BAR:.0f} s",
            ratio=median / (_LEASES.attempt + _BAR),
            bar="<= 1",
            spread=tuple((_LEASES.attempt + beyond) / (_LEASES.attempt + _BAR) for beyond in (min(late), max(late))),  # type: ignore[arg-type]  # two
        ),
        Row(
            what="steps repeated, of a checkpoint interval",
            ours=str(max(repeated)),
            peer=str(INTERVAL),
            ratio=max(repeated) / INTERVAL,
            bar="<= 1",
        ),
    ]


def _lose_a_machine(site: Site) -> tuple[float, int]:
    """Seconds from the loss to the first step elsewhere, and how many steps were repeated."""
    job = submit(site, gpus=1, epochs=3000)
    until(lambda: _steps(site, job, attempt=1, above=2 * INTERVAL), "some steps", _PATIENCE)
    node = site.store.get(job.id).attempts[0].node
    # The agent first: it would notice that the others die.
    for process in (site.agents[node].process, *site.of_machine(node)):
        process.kill()
    began = time.monotonic()
    until(lambda: _steps(site, job, attempt=2), "a step elsewhere", _PATIENCE)
    seconds = time.monotonic() - began
    resumed = site.store.get(job.id).attempts[1].resumed_from_step
    repeated = max(_steps(site, job, attempt=1)) - resumed
    site.client.job(job.id).cancel()
    until(lambda: site.store.get(job.id).state is State.CANCELLED, "the end", _PATIENCE)
    site.heal()
    return seconds, repeated


def _steps(site: Site, job: Job, *, attempt: int, above: int = 0) -> list[int]:
    return [
        step
        for event in events(site, job.id)
        if event.attempt == attempt and isinstance(event.payload, MetricBatch)
        for series in event.payload.series
        for step in series.steps
        if series.name == "train/loss" and step > above
    ]
