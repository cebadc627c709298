"""`python -m podium.worker.slot MARK PARENT NODE SLOT`: the supervisor of one slot."""

import os
import secrets
import signal
import sys
from pathlib import Path

from rq import Queue

from podium.jobs.delivery import queue_name
from podium.jobs.settings import from_environment
from podium.jobs.store.redis import RedisStore, connect
from podium.worker import logs
from podium.worker.noticeboard import FOLDER, Noticeboard
from podium.worker.processes import adopt_orphans, die_with_parent
from podium.worker.supervisor import Delivery, SlotWorker


def main(arguments: list[str]) -> None:
    """Works until SIGTERM. SIGUSR1 sends an attempt back to the queue."""
    mark, parent, node, slot = arguments
    die_with_parent(int(parent))
    adopt_orphans()
    logs.configure()
    settings = from_environment()
    connection = connect(settings)
    queue = Queue(
        queue_name(node, int(slot)),
        connection=connection,
        serializer="json",
        job_class=Delivery,
        default_timeout=-1,
    )
    worker = SlotWorker(
        [queue],
        # RQ refuses a name that is still registered, as that of a killed predecessor is.
        name=f"{queue.name}.{secrets.token_hex(4)}",
        connection=connection,
        serializer="json",
        job_class=Delivery,
        worker_ttl=60,
        maintenance_interval=60,
        default_result_ttl=86_400,
        log_job_description=False,
    )
    worker.store = RedisStore(connect(settings), leases=settings.leases)
    worker.node, worker.slot, worker.mark = node, int(slot), mark
    worker.board, worker.grace = Noticeboard(Path(os.environ[FOLDER])), settings.leases.grace
    signal.signal(signal.SIGUSR1, worker.request_requeue)
    worker.warm_up()
    worker.work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1:])
