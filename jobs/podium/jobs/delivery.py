"""What travels through RQ: on which queue, and as which call. Ids and numbers only, as JSON."""

import hashlib
import re
from dataclasses import asdict
from typing import Any

from podium.jobs.store import Assignment

#: The one function that a worker runs; everything else in a queue is refused.
FUNCTION = "podium.worker.entry.run"


def queue_name(node: str, slot: int) -> str:
    """The queue of one slot of one machine: each has exactly one reader, RQ's only reliable delivery."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", node)
    if name != node:
        # Two machines must not share a queue because their names look alike.
        name += "-" + hashlib.sha256(node.encode()).hexdigest()[:8]
    return f"podium.{name}.{slot}"


def payload(assignment: Assignment) -> dict[str, Any]:
    """The keyword arguments of FUNCTION."""
    return asdict(assignment)


def delivery_id(assignment: Assignment, queue: str) -> str:
    """RQ's id of this delivery: an attempt on several machines has one for each."""
    return f"{assignment.job_id}-{assignment.attempt}-{hashlib.sha256(queue.encode()).hexdigest()[:8]}"
