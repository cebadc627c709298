"""The ledger: one interface, one implementation in memory, one in Redis (podium.jobs.store.redis)."""

from podium.jobs.store._archive import Archive
from podium.jobs.store._base import Bell, JobStore
from podium.jobs.store._ledger import new_job_id, no_such_checkpoint, no_such_job, utc_now
from podium.jobs.store._memory import MemoryStore
from podium.jobs.store._terms import (
    Assignment,
    Bookmark,
    Census,
    Deletion,
    Drain,
    EventPage,
    Leases,
    LogPage,
    NewJob,
    StoredEvent,
    StoredLines,
    Usage,
    Wish,
)
from podium.jobs.store._tokens import StoredToken, TokenBook

__all__ = [
    "Archive",
    "Assignment",
    "Bell",
    "Census",
    "Deletion",
    "Bookmark",
    "Drain",
    "EventPage",
    "JobStore",
    "LogPage",
    "Leases",
    "MemoryStore",
    "NewJob",
    "StoredEvent",
    "StoredLines",
    "StoredToken",
    "TokenBook",
    "Usage",
    "Wish",
    "new_job_id",
    "no_such_checkpoint",
    "no_such_job",
    "utc_now",
]
