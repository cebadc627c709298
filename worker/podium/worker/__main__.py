"""`python -m podium.worker`: the node agent of this machine."""

import argparse
import logging
import os
import re
import signal
import socket
import sys
from importlib.metadata import version
from importlib.util import find_spec

from podium.worker import logs

_LOG = logging.getLogger(__name__)
#: Variables that name files which only the worker should be able to read.
_SECRET_FILES = ("PODIUM_REDIS_PASSWORD_FILE", "PODIUM_REDIS_TLS_KEY")
#: As a spec may name one; nobody could ask for another.
_POOL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_NODE = 253
_SETTINGS = (
    "Settings come from the environment: PODIUM_REDIS_*, PODIUM_ARTIFACTS, PODIUM_DATA_ROOTS, PODIUM_URI_PREFIXES, "
    "PODIUM_LEASE_*, PODIUM_GRACE, PODIUM_ADDRESS, PODIUM_TRAINER, PODIUM_LOG_FORMAT and OTEL_*. docs/operations.md "
    "has them all."
)
_NEEDED = ("redis", "rq", "psutil", "torch", "torchvision", "timm", "safetensors", "PIL")


def main(arguments: list[str]) -> None:
    """Works until SIGTERM or Ctrl-C; after SIGUSR2, until the jobs that are here have ended."""
    options = _parse(arguments)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        sys.exit(f"{', '.join(missing)} not installed; run: pip install 'podium[worker]'")
    try:
        logs.configure()
        _work(options)
    except ValueError as error:
        sys.exit(str(error))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m podium.worker", description="Runs jobs on this machine.", epilog=_SETTINGS
    )
    parser.add_argument(
        "--node",
        type=_node,
        default=socket.gethostname(),
        help="the machine's name, unique in the cluster; the host's unless said",
    )
    parser.add_argument(
        "--pool", type=_pool, default="default", help="the pool that it belongs to; `default` unless said"
    )
    slots = parser.add_mutually_exclusive_group()
    slots.add_argument("--cpu-slots", type=int, metavar="N", help="run N jobs at a time on the CPU")
    slots.add_argument(
        "--gpus", metavar="all|0,1", help="the GPUs to use; all of them unless said, the CPU without any"
    )
    return parser.parse_args(arguments)


def _node(name: str) -> str:
    if not (0 < len(name) <= _LONGEST_NODE and name.isprintable()):
        raise argparse.ArgumentTypeError(f"{name!r}: give 1 to {_LONGEST_NODE} letters that can be printed")
    return name


def _pool(name: str) -> str:
    if not _POOL.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{name!r}: give at most 63 small letters, digits, and hyphens between them")
    return name


def _work(options: argparse.Namespace) -> None:
    # After the check for what is missing, which these would not survive.
    from podium.jobs.job import Node, NodeState
    from podium.jobs.secret_files import open_to_others
    from podium.jobs.settings import from_environment
    from podium.jobs.store.redis import RedisStore, connect
    from podium.worker import inventory
    from podium.worker.agent import Agent
    from podium.worker.processes import mark
    from podium.worker.trainer import check_trainer

    if options.cpu_slots is not None and options.cpu_slots < 1:
        raise ValueError(f"--cpu-slots {options.cpu_slots}: give at least 1")
    check_trainer()
    settings = from_environment()
    for problem in open_to_others({name: os.environ.get(name) for name in _SECRET_FILES}):
        _LOG.warning(problem)
    slots = (
        inventory.cpu_slots(options.cpu_slots)
        if options.cpu_slots
        else inventory.gpu_slots(options.gpus)
        if options.gpus
        else inventory.own_slots()
    )
    node = Node(
        id=options.node,
        pool=options.pool,
        state=NodeState.READY,
        slots=slots,
        version=version("podium"),
        versions=inventory.versions(),
        address=inventory.own_address(settings.redis_url),
    )
    _LOG.info("%s of pool %s has slots: %d; the ledger is %s", node.id, node.pool, len(slots), settings.ledger)
    node_mark = mark(settings, options.node)
    with _only_one(node_mark):
        store = RedisStore(connect(settings), leases=settings.leases)
        agent = Agent(store, node, leases=settings.leases, mark=node_mark)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.request_stop())
        signal.signal(signal.SIGUSR2, lambda *_: agent.request_finish())
        agent.run()


def _only_one(node_mark: str) -> socket.socket:
    """A lock that the kernel frees when the process ends, however it ends: two agents would kill each other's jobs."""
    lock = socket.socket(socket.AF_UNIX)
    if sys.platform != "linux":
        return lock  # such sockets are Linux's own
    try:
        lock.bind(f"\0{node_mark}"[:100])
    except OSError:
        lock.close()
        raise ValueError("an agent of this name runs here already; stop it, or give another --node") from None
    return lock


if __name__ == "__main__":
    main(sys.argv[1:])
