"""One of several ranks: joins the others, then trains with them."""

import os
from datetime import timedelta

import torch
from torch import distributed

from podium.jobs.job import Job
from podium.worker.fit._run import run
from podium.worker.fit.world import World
from podium.worker.job_context import JobContext

#: So long a rank waits for the others before it gives up. Rank 0 may have a checkpoint to write meanwhile.
_PATIENCE = timedelta(minutes=30)
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
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    world = World(device=device, rank=distributed.get_rank(), size=distributed.get_world_size())
    run(job, context, device=device, threads=threads, world=world)
    # Who leaves first would take the last messages to the others along.
    distributed.barrier()


def is_consequence(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    return isinstance(error, distributed.DistError) or any(sign in str(error) for sign in _GONE)
