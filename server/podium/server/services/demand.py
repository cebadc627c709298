"""How much a pool is asked for."""

from podium.jobs.store import JobStore


def demand(store: JobStore, pool: str) -> int:
    """The slots that the pool's jobs hold or wait for.

    Those that are held count, since a pool that shrank to what merely waits would stop what runs.

    Raises:
        UnavailableError: the ledger cannot be reached.
    """
    # Dispatched in between, a job counts twice this time rather than not at all.
    waiting = store.known(store.pending(pool))
    running = [job for job, _, _ in store.holding() if job.spec.resources.pool == pool]
    return sum(job.spec.resources.slots for job in (*waiting, *running))
