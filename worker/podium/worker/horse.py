"""`python -m podium.worker.horse MARK PARENT [beside]`: the process of one attempt, whose ids come on standard input.

While they do not come, it imports what an attempt needs, and nothing more: no device is touched, no seed set.
SIGUSR1 and SIGUSR2 make it write the stacks of its threads: see `stacks`.
"""

import json
import logging
import os
import select
import sys
import threading

from podium.worker import entry, logs
from podium.worker.processes import die_with_parent
from podium.worker.spare import BESIDE
from podium.worker.stacks import show_on_signal
from podium.worker.trainer import trainer

#: How much an import beside an attempt gives way to it; not more, as the next attempt may be waiting for it.
_NICE = 5


def main(arguments: list[str]) -> None:
    """Waits for the ids of an attempt, and runs it."""
    mark, parent, *how = arguments
    die_with_parent(int(parent))
    show_on_signal("attempt")
    logs.configure()
    if not select.select([sys.stdin], [], [], 0)[0]:
        _warm_up(beside=BESIDE in how)
    # Without an order nobody is left to give one.
    if order := sys.stdin.readline():
        entry.run(**json.loads(order), mark=mark)
    logging.shutdown()
    # The slot waits for the end of this process, and taking down what torch has built up takes long.
    os._exit(0)


def _warm_up(*, beside: bool) -> None:
    if not beside or sys.platform != "linux":
        trainer()
        return

    def gently() -> None:
        # On Linux each thread has its own niceness. Nobody could take back the process's own for the attempt.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        trainer()

    thread = threading.Thread(target=gently, name="import")
    thread.start()
    thread.join()


if __name__ == "__main__":
    main(sys.argv[1:])
