"""Puts right what was cut short: an attempt that fell silent is ended, and its job goes back to the queue."""

import logging
import time
from collections.abc import Callable, Sequence

from podium.jobs.errors import NotFoundError, StaleFenceError
from podium.jobs.job import Attempt, Job, Node, NodeState
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, Leases

_LOG = logging.getLogger(__name__)


class Reconciler:
    """Looks at every job that holds a slot.

    Args:
        store: the ledger.
        leases: how long silence means nothing.
        clock: tells seconds that only grow.
    """

    def __init__(self, store: JobStore, leases: Leases, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._patience = 2 * leases.attempt
        self._clock = clock
        self._silent_since: dict[Assignment, float] = {}

    def reconcile(self) -> int:
        """Recovers what is lost; the number of attempts that were."""
        nodes = {node.id: node for node in self._store.nodes()}
        holding = self._store.holding()
        silent = [(job, assignment) for job, assignment, lives in holding if not lives]
        known = self._silent_since
        self._silent_since = {assignment: known.get(assignment, self._clock()) for _, assignment in silent}
        return sum(self._judge(job, assignment, nodes) for job, assignment in silent)

    def _judge(self, job: Job, assignment: Assignment, nodes: dict[str, Node]) -> bool:
        outcome = self._lost(job, assignment, nodes)
        if not outcome:
            return False
        try:
            recovered = self._store.recover(assignment, outcome)
        except (StaleFenceError, NotFoundError):
            # Somebody else was first: the attempt itself, its node agent, or another server.
            return False
        _LOG.warning("%s, attempt %d: %s; now %s", job.id, assignment.attempt, outcome, recovered.state.name)
        return True

    def _lost(self, job: Job, assignment: Assignment, nodes: dict[str, Node]) -> str:
        """How the attempt was lost, in words; empty as long as it may still be heard from."""
        if job.state is State.STARTING:
            return "the attempt never began"
        machine = _machine(job.attempts, assignment)
        node = nodes.get(machine)
        if node is None or node.state is NodeState.LOST:
            return f"the machine {machine} was lost"
        # The machine lives, so its agent will report what became of the attempt, unless the agent is at fault itself.
        if self._clock() - self._silent_since[assignment] > self._patience:
            return f"the attempt fell silent on {machine}"
        return ""


def _machine(attempts: Sequence[Attempt], assignment: Assignment) -> str:
    return next((attempt.node for attempt in attempts if attempt.number == assignment.attempt), "")
