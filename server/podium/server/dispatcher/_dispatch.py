"""Gives free slots to waiting jobs: by priority, then first come, first served."""

import logging
from collections import defaultdict, deque
from collections.abc import Sequence

from podium.jobs.errors import FailedPreconditionError, UnavailableError
from podium.jobs.job import Node, NodeState
from podium.jobs.store import JobStore
from podium.server.dispatcher._delivery import Delivery

_LOG = logging.getLogger(__name__)


def dispatch(store: JobStore, delivery: Delivery) -> int:
    """Fills every free slot that a job waits for; the number of jobs that were started."""
    return sum(_fill(pool, slots, store, delivery) for pool, slots in free_slots(store.nodes()).items())


def free_slots(nodes: Sequence[Node]) -> dict[str, deque[tuple[str, int]]]:
    """By pool, the free slots of machines that take jobs, those of the emptiest machine first."""
    by_pool: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for node in nodes:
        if node.state is not NodeState.READY:
            continue
        busy = sum(bool(slot.job_id) for slot in node.slots)
        free = [slot.index for slot in node.slots if not slot.job_id]
        by_pool[node.pool] += [(busy + place, node.id, index) for place, index in enumerate(free)]
    return {pool: deque((node, index) for _, node, index in sorted(slots)) for pool, slots in by_pool.items()}


def _fill(pool: str, slots: deque[tuple[str, int]], store: JobStore, delivery: Delivery) -> int:
    started = 0
    for job_id in store.pending(pool) if slots else ():
        if not slots:
            break
        node, slot = slots[0]
        try:
            assignment = store.dispatch(job_id, node, slot)
        except FailedPreconditionError as error:
            if error.reason == "SLOT_TAKEN":
                # The plan is old. A new one at the next look, rather than a later job before this one.
                break
            continue
        slots.popleft()
        started += 1
        _LOG.info("dispatched %s, attempt %d, to slot %d of %s", job_id, assignment.attempt, slot, node)
        try:
            delivery.deliver(assignment, node, slot)
        except UnavailableError as error:
            _LOG.warning("%s; it goes back to the queue when its lease is over", error.message)
    return started
