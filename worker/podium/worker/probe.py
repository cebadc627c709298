"""Is this machine in the pool? `python -m podium.worker.probe [NODE]` exits 0 when it is, for health checks."""

import socket
import sys

from podium.jobs.errors import UnavailableError
from podium.jobs.job import NodeState
from podium.jobs.settings import from_environment
from podium.jobs.store.redis import RedisStore, connect


def main(node_id: str) -> int:
    """0 where the ledger has heard from the machine within its lease."""
    try:
        settings = from_environment()
        nodes = RedisStore(connect(settings), leases=settings.leases).nodes()
    except (UnavailableError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    state = next((node.state for node in nodes if node.id == node_id), None)
    if state is None or state is NodeState.LOST:
        sys.stderr.write(f"{node_id} {'is not in the pool' if state is None else 'was not heard from of late'}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else socket.gethostname()))
