"""Reads one job's event stream from one server for as long as the job lives, whatever happens to that server."""

import threading

from podium.client import Client
from podium.jobs.errors import OutOfRangeError, PodiumError
from podium.jobs.events import JobEvent


class Watcher:
    """A thread with a client of its own.

    Args:
        address: of the server.
        job_id: the job.
    """

    def __init__(self, address: str, job_id: str) -> None:
        self._client = Client(address, patience=120)
        self._job_id = job_id
        self.events: list[JobEvent] = []
        """The snapshot, then what came."""
        self.trimmed: OutOfRangeError | None = None
        """The explicit refusal, where events were no longer kept."""
        self.error: PodiumError | None = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.events.extend(self._client.job(self._job_id).watch())
        except OutOfRangeError as error:
            self.trimmed = error
        except PodiumError as error:
            self.error = error

    def ended(self, seconds: float) -> bool:
        """Whether the stream came to its end within so many seconds; closes the client."""
        self._thread.join(seconds)
        ended = not self._thread.is_alive()
        self._client.close()
        return ended
