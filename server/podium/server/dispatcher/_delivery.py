"""Hands an assignment to the one queue of its slot; of each machine, where it has several slots there, to the first's.

The ledger is the truth: a delivery that is lost costs a lease, not a job.
"""

from typing import Protocol

import redis
from rq import Queue

from podium.jobs.delivery import FUNCTION, delivery_id, payload, queue_name
from podium.jobs.errors import UnavailableError
from podium.jobs.store import Assignment

_A_DAY, _A_WEEK = 86_400, 604_800


class Delivery(Protocol):
    """Brings assignments to machines."""

    def deliver(self, assignment: Assignment, node: str, slot: int) -> None:
        """Puts the assignment where the slot will find it; twice is as good as once.

        Raises:
            UnavailableError: the queue cannot be reached.
        """


class RqDelivery:
    """RQ queues with JSON in them. The function's dotted name is enqueued, never imported.

    Args:
        connection: of its own, and without decoding.
    """

    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection

    def deliver(self, assignment: Assignment, node: str, slot: int) -> None:
        """See Delivery.deliver."""
        name = queue_name(node, slot)
        queue = Queue(name, connection=self._connection, serializer="json")
        try:
            queue.enqueue_call(
                FUNCTION,
                kwargs=payload(assignment),
                # Training takes as long as it takes; the spec's own limit is kept by the attempt.
                timeout=-1,
                result_ttl=_A_DAY,
                failure_ttl=_A_WEEK,
                job_id=delivery_id(assignment, name),
                description="",
            )
        except redis.RedisError as error:
            raise UnavailableError(f"{assignment.job_id} could not be delivered to {node}: {error}") from error
