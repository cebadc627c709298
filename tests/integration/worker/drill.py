"""A trainer in place of podium.worker.fit, whose ranks are only there, or fail as the display_name says. No torch.

"march": rank 0 does a step every hundredth of a second, saves the first of each attempt, and all go on until they are
to stop. "rank N fails": that rank raises, and the others never notice, as in a collective that does not look.
"""

import os
import time
import traceback
from pathlib import Path

from podium.jobs.job import Cause, Job, JobError
from podium.worker.job_context import JobContext, Stopped


def run(job: Job, context: JobContext, *, threads: int) -> None:
    """A job of one device is done at once."""
    context.report(1, {"train/loss": 1.0})


def run_as_rank(job: Job, context: JobContext, *, threads: int) -> None:
    """See the module."""
    rank, saved = int(os.environ["RANK"]), context.newest()
    start = step = saved.step if saved else 0
    if job.spec.display_name == f"rank {rank} fails":
        raise LookupError(f"rank {rank} was told to")
    while True:
        if (reason := context.should_stop()) is not None:
            raise Stopped(reason)
        if rank == 0:
            step += 1
            context.report(step, {"train/loss": 1.0})
            if step == start + 1:
                context.save(step, _write, metrics={}, best=False)
        time.sleep(0.01)


def _write(folder: Path) -> None:
    (folder / "step").write_text("done", encoding="utf-8")


def describe(error: BaseException) -> JobError:
    """See podium.worker.trainer.Trainer."""
    text = "".join(traceback.format_exception(error))
    return JobError(cause=Cause.DATA, message=str(error), remedy="as told", traceback=text)


def is_consequence(error: BaseException) -> bool:
    """See podium.worker.trainer.Trainer."""
    return False
