"""`python -m podium.worker.torchrun MARK PARENT FOLDER PLACE`: torchrun on one machine of an attempt.

It dies with the process that started it, and leaves SIGTERM to it: torchrun would answer with SIGKILL for all ranks
after 30 seconds, which may be too little to save a large model. How ranks died is left in FOLDER.

On several machines, torchrun numbers the ranks by the order of the machines' addresses. Ours are numbered by the order
in which the dispatcher named the machines, so that rank 0 is where the attempt is: each is told its machine's first.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # stubs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as run

from podium.worker.launch import Place, write_exits
from podium.worker.processes import die_with_parent

#: How long the machines wait for one another, in seconds. The attempt gives up sooner where one does not come at all.
_PATIENCE = 600


def main(arguments: list[str]) -> None:
    """Runs the ranks to their end."""
    mark, parent, folder, text = arguments
    place = Place(**json.loads(text))
    # Not SIG_IGN, which ranks would inherit: torchrun then waited for 30 seconds for those that still start.
    signal.signal(signal.SIGTERM, lambda *_: None)
    die_with_parent(int(parent), signal.SIGKILL)
    # Kept to the end: the machines meet in it.
    _store = _host(place)
    here = [f"--nproc-per-node={place.ranks}", f"--local-addr={place.address}", f"--log-dir={folder}"]
    ours = ["--max-restarts=0", "--signals-to-handle=SIGINT"]
    rank = ["-m", "podium.worker.rank", mark, str(os.getpid()), f"{folder}/line", str(place.first)]
    try:
        run([*_rendezvous(place), *here, *ours, *rank])
    except ChildFailedError as error:
        codes = {place.first + failure.local_rank: failure.exitcode for failure in error.failures.values()}
        write_exits(Path(folder), _causes(codes))
        sys.exit(1)


def _causes(codes: Mapping[int, int]) -> Mapping[int, int]:
    """Without the ranks that torchrun itself has ended for those that failed; it notes them too, after these."""
    own = {rank: code for rank, code in codes.items() if code != -signal.SIGTERM}
    return own or dict(list(codes.items())[:1])


def _rendezvous(place: Place) -> list[str]:
    if place.machines == 1:
        return ["--standalone"]
    where = ["--rdzv-backend=c10d", f"--rdzv-endpoint={place.store}", f"--rdzv-id={place.name}"]
    return [f"--nnodes={place.machines}", *where, f"--rdzv-conf=is_host=0,join_timeout={_PATIENCE}"]


def _host(place: Place) -> TCPStore | None:
    """The store, on the first machine: on a port that the attempt holds, so that nobody can take it in between."""
    if place.listener < 0:
        return None
    address, _, port = place.store.rpartition(":")
    return TCPStore(address, int(port), is_master=True, wait_for_workers=False, master_listen_fd=place.listener)


if __name__ == "__main__":
    main(sys.argv[1:])
