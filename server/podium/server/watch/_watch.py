"""One watch: the job as it stands, its history from the ledger, then what is new from the hub.

A watcher that reads too slowly for the hub goes back to the ledger: it slows nobody but itself, and misses nothing.
"""

import asyncio
from collections.abc import AsyncGenerator

from podium.api.v1.event_pb2 import JobEvent, Keepalive
from podium.jobs import wire
from podium.jobs.job import Job
from podium.jobs.states import State
from podium.jobs.store import JobStore
from podium.server.watch._hub import Hub, parsed

_TERMINAL = frozenset(state.value for state in State if state.terminal)


class Watches:
    """Opens watches.

    Args:
        store: the ledger.
        hub: brings what is new.
        keepalive: seconds of silence after which a sign of life is sent.
        page: events read from the history at a time.
    """

    def __init__(self, store: JobStore, hub: Hub, *, keepalive: float = 15.0, page: int = 200) -> None:
        self._store = store
        self._hub = hub
        self._keepalive = keepalive
        self._page = page

    async def watch(self, job_id: str, snapshot: Job, after: int) -> AsyncGenerator[JobEvent, None]:
        """A snapshot, then every event after `after` in order, each once; ends after the one that ended the job.

        Raises:
            OutOfRangeError: events after `after` are not kept any more, or `after` is in the future.
            UnavailableError: the server stops, or has lost its ledger.
        """
        yield JobEvent(job_id=job_id, snapshot=wire.to_proto(snapshot))
        while True:
            page = await asyncio.to_thread(self._store.events, job_id, after=after, limit=self._page)
            for event in parsed(page):
                after = event.sequence
                yield event
                if _ends(event):
                    return
            if snapshot.terminal and after >= snapshot.sequence:
                return
            subscription = self._hub.join(job_id, after) if after >= page.last_sequence else None
            if subscription is None:
                continue
            try:
                while (events := await subscription.take(self._keepalive)) is not None:
                    for event in events or [_sign_of_life(job_id)]:
                        after = event.sequence or after
                        yield event
                        if _ends(event):
                            return
            finally:
                self._hub.leave(job_id, subscription)


def _ends(event: JobEvent) -> bool:
    return event.WhichOneof("payload") == "state" and event.state.to_state in _TERMINAL


def _sign_of_life(job_id: str) -> JobEvent:
    return JobEvent(job_id=job_id, keepalive=Keepalive())
