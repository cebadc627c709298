"""Pub/sub as the ledger's bell."""

import time

from redis.client import PubSub

from podium.jobs.errors import UnavailableError
from podium.jobs.store._redis_link import Link, reaching


class RedisBell:
    """Listens on its own connection; one that broke is replaced at the next wait."""

    def __init__(self, link: Link, channel: str) -> None:
        self._link = link
        self._channel = channel
        self._pubsub: PubSub | None = self._subscribed()

    def _subscribed(self) -> PubSub:
        """A subscriber that Redis has confirmed, so that nothing rung from now on is missed."""
        pubsub = self._link.pubsub()
        with reaching():
            pubsub.subscribe(self._channel)
            if pubsub.get_message(timeout=5.0) is None:
                raise UnavailableError("the ledger does not answer; try again")
        return pubsub

    def wait(self, timeout: float) -> frozenset[str]:
        """See Bell.wait."""
        try:
            if self._pubsub is None:
                self._pubsub = self._subscribed()
            return self._rings(self._pubsub, time.monotonic() + timeout)
        except UnavailableError:
            self.close()
            raise

    @staticmethod
    def _rings(pubsub: PubSub, deadline: float) -> frozenset[str]:
        rang: set[str] = set()
        with reaching():
            while True:
                left = 0.0 if rang else max(deadline - time.monotonic(), 0.0)
                message = pubsub.get_message(timeout=left)
                if message is not None and message["type"] == "message":
                    rang.add(message["data"].decode())
                elif message is None and (rang or time.monotonic() >= deadline):
                    return frozenset(rang)

    def close(self) -> None:
        """Gives the connection back."""
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None
