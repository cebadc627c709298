"""`python -m podium.worker.torchrun MARK PARENT COUNT FOLDER`: torchrun, started by the process of an attempt.

It dies with the attempt, and leaves SIGTERM to it: torchrun would answer with SIGKILL for all ranks after 30 seconds,
which may be too little to save a large model. How ranks died is left in FOLDER.
"""

import json
import os
import signal
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as run

from podium.worker.processes import die_with_parent


def main(arguments: list[str]) -> None:
    """Runs the ranks to their end."""
    mark, parent, count, folder = arguments
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(int(parent), signal.SIGKILL)
    here = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={count}", f"--log-dir={folder}"]
    ours = ["--max-restarts=0", "--signals-to-handle=SIGINT"]
    rank = ["-m", "podium.worker.rank", mark, str(os.getpid()), f"{folder}/line"]
    try:
        run([*here, *ours, *rank])
    except ChildFailedError as error:
        exits = {rank: failure.exitcode for rank, failure in error.failures.items()}
        (Path(folder) / "exits.json").write_text(json.dumps(exits), encoding="utf-8")
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
