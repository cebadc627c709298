"""How much a pool is asked for."""

from podium.jobs.store import JobStore


class PoolDemand:
    """The slots that the jobs of a pool hold or wait for.

    Those that are held count, since a pool that shrank to what merely waits would stop what runs.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._needs: dict[str, dict[str, int]] = {}

    def slots(self, pool: str) -> int:
        """How many. A job that starts while this looks counts twice, rather than not at all.

        Raises:
            UnavailableError: the ledger cannot be reached.
        """
        waiting = self._waiting(pool)
        return waiting + sum(
            bool(slot.job_id) for node in self._store.nodes() if node.pool == pool for slot in node.slots
        )

    def _waiting(self, pool: str) -> int:
        """What a job needs never changes, so it is read once while the job waits: a long line takes seconds to read."""
        line, known = self._store.pending(pool), self._needs.get(pool, {})
        new = self._store.known([job_id for job_id in line if job_id not in known])
        needs = known | {job.id: job.spec.resources.slots for job in new}
        # A new dict, since another call may be reading the old one.
        current = {job_id: needs[job_id] for job_id in line if job_id in needs}
        if current:
            self._needs[pool] = current
        else:
            # Whoever asks for pools that are none must not fill the memory.
            self._needs.pop(pool, None)
        return sum(current.values())
