"""Gives slots to waiting jobs, as the plan says, and keeps the account of what projects use."""

import logging
import time
from collections.abc import Callable

from podium.jobs.errors import FailedPreconditionError, NotFoundError, StaleFenceError, UnavailableError
from podium.jobs.job import slots_in_words
from podium.jobs.spec import Priority
from podium.jobs.store import JobStore, Usage
from podium.server import meters
from podium.server.dispatcher._delivery import Delivery
from podium.server.dispatcher._plan import Placement, plan
from podium.server.dispatcher._pool import Pool, Waiting
from podium.server.dispatcher._preempt import Preemption
from podium.server.dispatcher._snapshots import Snapshots

_LOG = logging.getLogger(__name__)
#: Seconds of starting jobs at one look, so that no look outlasts the leader's term. The rest starts at the next one.
_LONGEST = 1.0
#: Seconds between two writes of the account.
_WRITE_EVERY = 5.0


class Dispatcher:
    """Fills the slots of every pool.

    Args:
        store: the ledger.
        delivery: brings assignments to machines.
        snapshots: knows what waits and what runs.
        ticks: tells seconds that only grow.
    """

    def __init__(
        self,
        store: JobStore,
        delivery: Delivery,
        snapshots: Snapshots,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ticks = ticks
        self._delivery = delivery
        self._snapshots = snapshots
        self._usage: Usage | None = None
        self._written: Usage | None = None
        self.knows_all = False
        """Whether the last look knew every job."""
        self.waited_for = True
        """Whether, at the last look, a job waited in a pool that has machines."""

    def take_over(self) -> None:
        """Goes on from the account that the last leader wrote."""
        self._usage = None

    def dispatch(self) -> int:
        """Takes one look at every pool, and does what `plan` says; the number of jobs that were started.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        snapshot = self._snapshots.look(self._usage)
        self._usage = snapshot.usage
        self._write(snapshot.usage)
        waiting = [pool for pool in snapshot.pools.values() if pool.waiting]
        self.knows_all, self.waited_for = snapshot.complete, bool(waiting)
        if not snapshot.complete:
            return 0
        # To each its part, lest a pool whose jobs come and go by the hundred leaves nothing to the others.
        return sum(self._serve(pool, _LONGEST / len(waiting)) for pool in waiting)

    def _write(self, usage: Usage) -> None:
        if self._written is None or (usage.time - self._written.time).total_seconds() >= _WRITE_EVERY:
            self._store.write_usage(usage)
            self._written = usage

    def _serve(self, pool: Pool, seconds: float) -> int:
        started = 0
        found = plan(pool)
        line = {job.id: job for job in pool.waiting} if found.placements else {}
        deadline = self._ticks() + seconds
        for placement in found.placements:
            if self._ticks() > deadline:
                return started
            try:
                self._start(placement)
            except (FailedPreconditionError, NotFoundError) as error:
                if error.reason == "SLOT_TAKEN":
                    # The plan is old. A new one at the next look, rather than a later job before this one.
                    return started
                self._snapshots.forget(placement.job_id)
            else:
                started += 1
                _note_wait(pool, line[placement.job_id])
        for preemption in found.preemptions:
            self._preempt(preemption)
        return started

    def _start(self, placement: Placement) -> None:
        first, *others = placement.members
        assignment = self._store.dispatch(placement.job_id, first.node, *first.slots, elsewhere=others)
        self._snapshots.forget(placement.job_id)
        places = "; ".join(f"{slots_in_words(member.slots)} of {member.node}" for member in placement.members)
        _LOG.info("dispatched %s, attempt %d, to %s", placement.job_id, assignment.attempt, places)
        for member in placement.members:
            try:
                self._delivery.deliver(assignment, member.node, member.slots[0])
            except UnavailableError as error:
                _LOG.warning("%s; it goes back to the queue when its lease is over", error.message)

    def _preempt(self, preemption: Preemption) -> None:
        assignment = preemption.victim.assignment
        if assignment is None:
            return
        try:
            self._store.preempt(assignment, preemption.reason)
        except StaleFenceError:
            # It has just ended by itself.
            return
        finally:
            self._snapshots.forget(preemption.victim.id)
        _LOG.info("preempted %s, attempt %d: %s", assignment.job_id, assignment.attempt, preemption.reason)


def _note_wait(pool: Pool, job: Waiting) -> None:
    meters.QUEUE_WAIT.labels(pool.name, Priority(job.rank).name).observe(max(pool.now - job.since, 0.0))
