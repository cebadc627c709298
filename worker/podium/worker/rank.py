"""`python -m podium.worker.rank MARK PARENT SOCKET`: one rank of a job with several devices. torchrun starts it.

SIGUSR1 makes it write the stacks of its threads to stderr, to see where one hangs.
"""

import base64
import faulthandler
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from podium.jobs import wire
from podium.jobs.job import Job
from podium.worker.job_context import Stopped
from podium.worker.processes import die_with_parent
from podium.worker.rank_context import RankContext
from podium.worker.rank_line import Line

#: So long a rank waits for the others before it gives up. Rank 0 may have a checkpoint to write meanwhile.
_PATIENCE = timedelta(minutes=30)
#: How it reads when another rank went away; torch has no class for that.
_GONE = ("gloo", "Connection closed by peer", "Connection reset by peer")


def main(arguments: list[str]) -> None:
    """Trains, and says how it ended. Never returns: to tear down a group whose other ranks are gone may hang."""
    _mark, parent, path = arguments
    # torchrun's launcher ignores SIGTERM, which a child inherits; torchrun ends the ranks that are left over by it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(int(parent), signal.SIGKILL)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    line = Line.to(Path(path))
    line.send("hello", rank=int(os.environ["RANK"]))
    welcome = line.receive()
    if welcome is None:
        sys.exit("the attempt is gone")
    job = wire.from_bytes(Job, base64.b64decode(welcome["job"]))
    context = RankContext(line)
    threading.Thread(target=_listen, args=(context,), name="line", daemon=True).start()
    code = _train(job, context, line)
    logging.shutdown()
    os._exit(code)


def _listen(context: RankContext) -> None:
    context.listen()
    # Nobody is left to train for.
    os._exit(1)


def _train(job: Job, context: RankContext, line: Line) -> int:
    """The exit code."""
    try:
        _join_and_run(job, context)
    except Stopped as stopped:
        line.send("stopped", reason=stopped.reason.value)
    except BaseException as error:  # whatever it is, the user is told
        from podium.worker import fit

        described = fit.describe(error)
        cause = described.cause.name
        line.send("failed", **asdict(described) | {"cause": cause}, consequence=_is_consequence(error))
        return 1
    else:
        line.send("done")
    return 0


def _join_and_run(job: Job, context: RankContext) -> None:
    # Only now: whatever goes wrong with these imports is told too.
    import torch
    from torch import distributed

    from podium.worker import fit
    from podium.worker.fit.world import World

    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    world = World(device=device, rank=distributed.get_rank(), size=distributed.get_world_size())
    fit.run(job, context, device=device, threads=int(os.environ["OMP_NUM_THREADS"]), world=world)
    # Who leaves first would take the last messages to the others along.
    distributed.barrier()


def _is_consequence(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or any(sign in str(error) for sign in _GONE)


if __name__ == "__main__":
    main(sys.argv[1:])
