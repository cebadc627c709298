"""The ledger: one interface, one implementation in memory, one in Redis (podium.jobs.store.redis)."""

from podium.jobs.store._base import (
    Assignment,
    Bell,
    EventPage,
    JobStore,
    Leases,
    NewJob,
    StoredEvent,
    Wish,
)
from podium.jobs.store._memory import MemoryStore

__all__ = [
    "Assignment",
    "Bell",
    "EventPage",
    "JobStore",
    "Leases",
    "MemoryStore",
    "NewJob",
    "StoredEvent",
    "Wish",
]
