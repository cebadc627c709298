"""One of several ranks: joins the others, then trains with them."""

import os
from datetime import timedelta

import torch
from torch import distributed

from podium.jobs.job import Job
from podium.worker.fit._run import choose_device, run
from podium.worker.fit.world import World
from podium.worker.job_context import JobContext

#: How it reads when another rank went away; torch has no class for that.
_GONE = ("gloo", "Connection closed by peer", "Connection reset by peer")


def run_as_rank(job: Job, context: JobContext, *, threads: int) -> None:
    """Does a job together with the other ranks, each of which calls. torchrun's variables are in the environment.

    Args:
        job: the job, its spec resolved.
        context: the line to the job; rank 0's alone is written to.
        threads: how many threads may decode images.

    Raises:
        Stopped: the attempt is to end before the job does.
        FitError: the job cannot go on; so may what `run` raises say. See `describe`.
    """
    device = choose_device()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # Longer than the supervisor waits for a sign of any: it knows what a stall is, and shows where the ranks hang.
    patience = timedelta(seconds=4 * job.spec.stall_timeout_seconds + 600)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    world = World(device=device, rank=distributed.get_rank(), size=distributed.get_world_size())
    run(job, context, device=device, threads=threads, world=world)
    # Who leaves first would take the last messages to the others along.
    distributed.barrier()


def is_consequence(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    return isinstance(error, distributed.DistError) or any(sign in str(error) for sign in _GONE)
