"""Puts right what was cut short: an attempt that fell silent or does not stop is ended, and its job goes on."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from podium.jobs.errors import NotFoundError, StaleFenceError
from podium.jobs.job import Cause, Job, Member, Node, NodeState
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, Leases, utc_now
from podium.server.dispatcher._pool import running
from podium.server.dispatcher._snapshots import Snapshot, Snapshots

_LOG = logging.getLogger(__name__)
#: Silence of so many seconds may be the leader's own, between two looks.
_OWN_PACE = 1.0


class Reconciler:
    """Looks at every job that holds a slot.

    Args:
        store: the ledger.
        snapshots: knows who runs.
        leases: how long silence means nothing.
        clock: the time, aware.
        ticks: tells seconds that only grow.
    """

    def __init__(
        self,
        store: JobStore,
        snapshots: Snapshots,
        leases: Leases,
        clock: Callable[[], datetime] = utc_now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._leases = leases
        self._clock = clock
        self._ticks = ticks
        self._silent_since: dict[Assignment, float] = {}
        self._in_touch = ticks()
        # Whatever this server was down for may have taken the ledger down as well.
        self._pardon_ends = self._in_touch + self._pardon

    def in_touch(self) -> None:
        """The ledger has answered. To be called all the time, also where another server leads.

        After a silence of the ledger's own nobody's silence means anything: leases ran out that could not be renewed.
        So everybody has as long as a lease to be heard again. Unreachable is not dead.
        """
        before, self._in_touch = self._in_touch, self._ticks()
        if self._in_touch - before > max(min(self._leases.attempt, self._leases.node) / 2, _OWN_PACE):
            self._pardon_ends = self._in_touch + self._pardon
            _LOG.warning("the ledger was silent for %.0f s: nobody counts as lost for now", self._in_touch - before)

    @property
    def _pardon(self) -> float:
        return max(self._leases.attempt, self._leases.node)

    def reconcile(self) -> int:
        """Recovers what is lost, by what the leader has just seen; the number of attempts that were.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        snapshot = self._snapshots.latest()
        nodes = {node.id: node for pool in snapshot.pools.values() for node in pool.nodes}
        # Most jobs are well. Only those that may not be are read, in one step with their leases.
        asked = {*self._store.silent(), *self._suspects(snapshot, nodes)}
        found = self._store.holding(sorted(asked))
        known = self._silent_since
        self._silent_since = {who: known.get(who, self._ticks()) for _, who, lives in found if not lives}
        return sum(self._judge(job, assignment, lives, nodes) for job, assignment, lives in found)

    def _suspects(self, snapshot: Snapshot, nodes: Mapping[str, Node]) -> list[str]:
        """Jobs that are over their time, or on several machines of which one is lost."""
        jobs = (job for pool in snapshot.pools.values() for job in pool.running.values())
        now = self._clock().timestamp()
        return [job.id for job in jobs if job.until < now or (len(job.members) > 1 and _lost_one(job.members, nodes))]

    def _judge(self, job: Job, assignment: Assignment, lives: bool, nodes: Mapping[str, Node]) -> bool:
        if self._ticks() < self._pardon_ends:
            # What has ended or saved its work meanwhile is about to say so.
            return False
        verdict = self._lost(job, assignment, lives, nodes) or self._overdue(job, assignment)
        if verdict is None:
            return False
        outcome, cause = verdict
        try:
            recovered = self._store.recover(assignment, outcome, cause=cause)
        except (StaleFenceError, NotFoundError):
            # Somebody else was first: the attempt itself, its node agent, or another server.
            return False
        _LOG.warning("%s, attempt %d: %s; now %s", job.id, assignment.attempt, outcome, recovered.state.name)
        return True

    def _lost(
        self, job: Job, assignment: Assignment, lives: bool, nodes: Mapping[str, Node]
    ) -> tuple[str, Cause] | None:
        """How the attempt was lost, in words, and why; None as long as it may still be heard from."""
        members = job.attempts[-1].members
        lost = _lost_one(members, nodes)
        if lost and len(members) > 1:
            # The others cannot go on without it, whatever they still believe.
            return f"the machine {lost} was lost", Cause.NODE_LOST
        if lives:
            return None
        if job.state is State.STARTING:
            # Nothing of it has run, so it is not the job that is at fault.
            return "the attempt never began", Cause.NODE_LOST
        if lost:
            return f"the machine {lost} was lost", Cause.NODE_LOST
        # The machine lives, so its agent will report what became of the attempt, unless the agent is at fault itself.
        if self._ticks() - self._silent_since[assignment] > 2 * self._leases.attempt:
            return f"the attempt fell silent on {members[0].node}", Cause.INTERNAL
        return None

    def _overdue(self, job: Job, assignment: Assignment) -> tuple[str, Cause] | None:
        """How the attempt is over its time, in words, and why; None: it is not.

        Its supervisor ends it first, and can say more. This is for one whose supervisor does not.
        """
        now = self._clock().timestamp()
        late = now - running(job, assignment, self._leases, None, now).until
        if late <= self._leases.attempt:
            return None
        if job.stop_time is None:
            limit = job.spec.max_duration_seconds
            return f"ran on though max_duration_seconds = {limit} was over, and was ended", Cause.DEADLINE
        what = {State.CANCELLING: "cancelled", State.PAUSING: "paused"}.get(job.state, "preempted")
        return f"{what}, but still there {late + self._leases.grace:.0f} s later, and was ended", Cause.PREEMPTED


def _lost_one(members: Sequence[Member], nodes: Mapping[str, Node]) -> str:
    """The first of the machines that is lost; empty: none."""
    for member in members:
        node = nodes.get(member.node)
        if node is None or node.state is NodeState.LOST:
            return member.node
    return ""
