"""Gives free slots to waiting jobs: by priority, then first come, first served."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

from podium.jobs.errors import FailedPreconditionError, UnavailableError
from podium.jobs.job import Node, NodeState, slots_in_words
from podium.jobs.store import JobStore
from podium.server.dispatcher._delivery import Delivery
from podium.server.dispatcher._plan import Placement, plan

_LOG = logging.getLogger(__name__)


class Dispatcher:
    """Fills the slots of every pool.

    Args:
        store: the ledger.
        delivery: brings assignments to machines.
    """

    def __init__(self, store: JobStore, delivery: Delivery) -> None:
        self._store = store
        self._delivery = delivery
        self._needs: dict[str, dict[str, int]] = {}

    def dispatch(self) -> int:
        """Takes one look at every pool, and starts what `plan` says; the number of jobs that were started.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        by_pool: dict[str, list[Node]] = defaultdict(list)
        for node in self._store.nodes():
            if node.state is NodeState.READY:
                by_pool[node.pool].append(node)
        return sum(self._fill(pool, nodes) for pool, nodes in by_pool.items())

    def _fill(self, pool: str, nodes: Sequence[Node]) -> int:
        started = 0
        for placement in plan(self._waiting(pool), nodes):
            try:
                self._start(placement)
            except FailedPreconditionError as error:
                if error.reason == "SLOT_TAKEN":
                    # The plan is old. A new one at the next look, rather than a later job before this one.
                    break
            else:
                started += 1
        return started

    def _waiting(self, pool: str) -> Iterator[tuple[str, int]]:
        """The jobs in line and the slots that each needs: a spec never changes, so it is read once while it waits."""
        known, self._needs[pool] = self._needs.get(pool, {}), {}
        for job_id in self._store.pending(pool):
            need = known.get(job_id) or self._store.get(job_id).spec.resources.gpus
            self._needs[pool][job_id] = need
            yield job_id, need

    def _start(self, placement: Placement) -> None:
        job_id, node, slots = placement.job_id, placement.node, placement.slots
        assignment = self._store.dispatch(job_id, node, *slots)
        _LOG.info("dispatched %s, attempt %d, to %s of %s", job_id, assignment.attempt, slots_in_words(slots), node)
        try:
            self._delivery.deliver(assignment, node, slots[0])
        except UnavailableError as error:
            _LOG.warning("%s; it goes back to the queue when its lease is over", error.message)
