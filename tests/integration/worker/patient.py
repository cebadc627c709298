"""podium.worker.fit, except that the first attempt of a job goes no further than STEP until it is asked to stop.

So a test can interrupt a job in its midst, however fast the machine is.
"""

import time

from podium.jobs.job import Job, Progress
from podium.worker import fit
from podium.worker.job_context import JobContext
from podium.worker.rank_context import RankContext

STEP = 5
run, describe, is_consequence = fit.run, fit.describe, fit.is_consequence


def run_as_rank(job: Job, context: JobContext, *, threads: int) -> None:
    """See podium.worker.trainer.Trainer."""
    if job.attempt == 1 and isinstance(context, RankContext):
        _wait_at_step(context)
    fit.run_as_rank(job, context, threads=threads)


def _wait_at_step(context: RankContext) -> None:
    told = context.progress

    def progress(progress: Progress) -> None:
        told(progress)
        while progress.step == STEP and context.should_stop() is None:
            time.sleep(0.01)

    context.progress = progress  # type: ignore[method-assign]  # the one place where rank 0 passes after every step
