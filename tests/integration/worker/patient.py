"""A trainer whose first attempts go STEPS steps and no further until they are asked to stop, or killed.

So a test can interrupt a job in its midst, however fast the machine is. The display_name says how many attempts are of
that kind, and after a blank the script of tests.chaos.trainer, which then does the work; without one it is
podium.worker.fit. That is imported where it is needed: neither a spare process nor the attempt of several ranks does.
"""

import time
from dataclasses import replace

from podium.jobs.job import Job, JobError, Progress
from podium.worker.job_context import JobContext
from tests.chaos import trainer as scripted

STEPS = 5


def run(job: Job, context: JobContext, *, threads: int) -> None:
    """See podium.worker.trainer.Trainer."""
    waits, _, script = job.spec.display_name.partition(" ")
    if job.attempt <= int(waits):
        _wait_in(context, job.attempts[-1].resumed_from_step + STEPS)
    if script:
        scripted.run(replace(job, spec=replace(job.spec, display_name=script)), context, threads=threads)
    else:
        from podium.worker import fit

        fit.run(job, context, threads=threads)


def run_as_rank(job: Job, context: JobContext, *, threads: int) -> None:
    """See podium.worker.trainer.Trainer. Rank 0 waits, and the others for it."""
    from podium.worker import fit

    if job.attempt <= int(job.spec.display_name):
        _wait_in(context, job.attempts[-1].resumed_from_step + STEPS)
    fit.run_as_rank(job, context, threads=threads)


def describe(error: BaseException) -> JobError:
    """See podium.worker.trainer.Trainer."""
    from podium.worker import fit

    return fit.describe(error)


def is_consequence(error: BaseException) -> bool:
    """See podium.worker.trainer.Trainer."""
    from podium.worker import fit

    return fit.is_consequence(error)


def _wait_in(context: JobContext, step: int) -> None:
    told = context.progress

    def progress(progress: Progress) -> None:
        told(progress)
        while progress.step == step and context.should_stop() is None:
            time.sleep(0.01)

    context.progress = progress  # type: ignore[method-assign]  # the one place where it passes after every step
