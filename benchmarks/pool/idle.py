"""How long a slot has nothing to do between two jobs in line: the real trainer's processes, which import torch first.

Read from the ledger: from the end of one attempt to the begin of the next, which holds its lease then and has its
imports done. The first job lasts longer than it takes until the next one's process is made ready.
"""

import itertools
import tempfile
from pathlib import Path

from benchmarks.rows import Row
from podium.jobs.job import Job
from podium.jobs.states import State
from tests.chaos.depth import submit
from tests.chaos.site import Site, until

_LIMIT = 1.0
_PATIENCE = 300.0
#: Epochs that take 20 seconds or more.
_LONG = 150


def measure(*, turns: int = 3) -> list[Row]:
    """The row: seconds between two jobs on a warm machine, median of so many turns."""
    with (
        tempfile.TemporaryDirectory(prefix="podium-") as folder,
        Site(Path(folder) / "s", machines={"a": 1}, servers=1, trainer=None) as site,
    ):
        line = [submit(site, gpus=1, epochs=_LONG) for _ in range(turns + 1)]
        done = [_ended(site, job) for job in line]
    idle = sorted(_seconds(before, after) for before, after in itertools.pairwise(done))
    median = idle[len(idle) // 2]
    what = "a slot's idle time between two jobs in line, on a warm machine"
    spread = (idle[0] / _LIMIT, idle[-1] / _LIMIT)
    return [Row(what=what, ours=f"{median:.2f} s", peer=f"{_LIMIT:.0f} s", ratio=median, bar="<= 1", spread=spread)]


def _ended(site: Site, job: Job) -> Job:
    until(lambda: site.store.get(job.id).terminal, "the end", _PATIENCE)
    done = site.store.get(job.id)
    if done.state is not State.SUCCEEDED:
        raise RuntimeError(f"{done.id} is {done.state.name}: {done.state_reason}")
    return done


def _seconds(before: Job, after: Job) -> float:
    if before.end_time is None or after.start_time is None:
        raise RuntimeError("a job that succeeded has neither begun nor ended")
    return (after.start_time - before.end_time).total_seconds()
