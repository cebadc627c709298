"""How much a pool is asked for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from podium.jobs.job import Node
from podium.jobs.store import JobStore
from podium.server.dispatcher import Demand, demand_of


class PoolDemand:
    """The slots that the jobs of a pool hold or wait for.

    Those that are held count, since a pool that shrank to what merely waits would stop what runs. What more machines of
    the pool's shape could not start does not.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._needs: dict[str, dict[str, Demand]] = {}

    def slots(self, pool: str, size: int) -> int:
        """How many. A job that starts while this looks counts twice, rather than not at all.

        Args:
            pool: the pool, all of whose machines are alike.
            size: the slots of one machine. Of what kind they are is known of the machines heard from within a day.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        waiting = self._waiting(pool)
        nodes = [node for node in self._store.nodes() if node.pool == pool]
        held = sum(bool(slot.job_id) for node in nodes for slot in node.slots)
        return held + sum(
            demand.slots * count
            for demand, count in Counter(waiting).items()
            if demand.gpus <= size and _has_kind(nodes, demand)
        )

    def _waiting(self, pool: str) -> Iterable[Demand]:
        """What a job needs never changes, so it is read once while the job waits: a long line takes seconds to read."""
        line, known = self._store.pending(pool), self._needs.get(pool, {})
        new = self._store.known([job_id for job_id in line if job_id not in known])
        needs = known | {job.id: demand_of(job.spec.resources) for job in new}
        # A new dict, since another call may be reading the old one.
        current = {job_id: needs[job_id] for job_id in line if job_id in needs}
        if current:
            self._needs[pool] = current
        else:
            # Whoever asks for pools that are none must not fill the memory.
            self._needs.pop(pool, None)
        return current.values()


def _has_kind(nodes: Sequence[Node], demand: Demand) -> bool:
    """Whether the machines have slots of the kind that is needed, busy or not; also where none has been seen."""
    slots = [slot for node in nodes for slot in node.slots]
    return not slots or any(demand.suits(replace(slot, trouble="")) for slot in slots)
