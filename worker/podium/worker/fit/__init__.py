"""Fine-tuning, alone or as one of several ranks.

Knows nothing of queues, ledgers and networks: it talks to a `JobContext`.
"""

from podium.worker.fit._failures import FitError, describe
from podium.worker.fit._run import choose_device, run
from podium.worker.fit.ranks import is_consequence, run_as_rank
from podium.worker.job_context import JobContext, Saved, Stopped, StopReason

__all__ = [
    "FitError",
    "JobContext",
    "Saved",
    "StopReason",
    "Stopped",
    "choose_device",
    "describe",
    "is_consequence",
    "run",
    "run_as_rank",
]
