"""`python -m podium.worker.rank MARK PARENT SOCKET FIRST`: one rank of a job with several devices. torchrun starts it.

FIRST is the first rank on this machine: torchrun's own count need not begin where the attempt is.

SIGUSR1 and SIGUSR2 make it write the stacks of its threads: see `stacks`.
"""

import base64
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from podium.jobs import tracing, wire
from podium.jobs.job import Job
from podium.worker import logs
from podium.worker.job_context import Stopped
from podium.worker.processes import die_with_parent
from podium.worker.rank_context import RankContext
from podium.worker.rank_line import Line
from podium.worker.stacks import show_on_signal
from podium.worker.trainer import trainer


def main(arguments: list[str]) -> None:
    """Trains, and says how it ended. Never returns: to tear down a group whose other ranks are gone may hang."""
    _mark, parent, path, first = arguments
    os.environ["RANK"] = str(int(first) + int(os.environ["LOCAL_RANK"]))
    die_with_parent(int(parent), signal.SIGKILL)
    show_on_signal(f"rank {os.environ['RANK']}")
    logs.configure()
    line = Line.to(Path(path))
    line.send("hello", rank=int(os.environ["RANK"]))
    welcome = line.receive()
    if welcome is None:
        sys.exit("the attempt is gone")
    job = wire.from_bytes(Job, base64.b64decode(welcome["job"]))
    logs.about(
        job_id=job.id, attempt=job.attempt, rank=int(os.environ["RANK"]), trace_id=tracing.trace_id(job.trace_parent)
    )
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
        # Imported only now: whatever goes wrong with it is told too.
        trainer().run_as_rank(job, context, threads=int(os.environ["OMP_NUM_THREADS"]))
    except Stopped as stopped:
        line.send("stopped", reason=stopped.reason.value)
    except BaseException as error:  # whatever it is, the user is told
        described, consequence = trainer().describe(error), trainer().is_consequence(error)
        line.send("failed", **asdict(described) | {"cause": described.cause.name}, consequence=consequence)
        return 1
    else:
        line.send("done")
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
