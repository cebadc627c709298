"""`python -m podium.worker.horse MARK PARENT`: the process of one attempt, whose ids come on its standard input.

While they do not come, it imports what an attempt needs, and nothing more: no device is touched, no seed set.
SIGUSR1 makes it write the stacks of its threads to stderr, to see where one hangs.
"""

import faulthandler
import json
import logging
import select
import signal
import sys

from podium.worker import entry
from podium.worker.processes import die_with_parent
from podium.worker.trainer import trainer


def main(arguments: list[str]) -> None:
    """Waits for the ids of an attempt, and runs it."""
    mark, parent = arguments
    die_with_parent(int(parent))
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not select.select([sys.stdin], [], [], 0)[0]:
        _warm_up()
    # Without an order nobody is left to give one.
    if order := sys.stdin.readline():
        entry.run(**json.loads(order), mark=mark)


def _warm_up() -> None:
    trainer()


if __name__ == "__main__":
    main(sys.argv[1:])
