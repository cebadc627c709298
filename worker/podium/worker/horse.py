"""`python -m podium.worker.horse MARK PARENT JOB ATTEMPT FENCE`: the process of one attempt.

SIGUSR1 makes it write the stacks of its threads to stderr, to see where one hangs.
"""

import faulthandler
import logging
import signal
import sys

from podium.worker import entry
from podium.worker.processes import die_with_parent


def main(arguments: list[str]) -> None:
    """Runs the attempt that the arguments name."""
    mark, parent, job_id, attempt, fence = arguments
    die_with_parent(int(parent))
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    entry.run(job_id, int(attempt), int(fence), mark=mark)


if __name__ == "__main__":
    main(sys.argv[1:])
