"""What runs beside the display: the stack in one thread, a watch of each job in another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from podium.client._job_handle import JobHandle
from podium.client.local import Stack
from podium.jobs.errors import PodiumError
from podium.jobs.events import JobEvent


class BackgroundStack:
    """A stack that is up within the `with` block.

    One thread starts the children and looks after them as long as it lasts, as they are tied to it.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stop = threading.Event()
        self._up = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="podium-stack")

    def __enter__(self) -> str:
        self._thread.start()
        try:
            self._up.wait()
        except BaseException:
            self._leave()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self._stack.target

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._stack.start()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._up.set()
        try:
            self._stack.run(self._stop.is_set)
        finally:
            self._stack.stop()


class BackgroundWatch:
    """Tells every event of a job, from a thread of its own."""

    def __init__(self, handle: JobHandle, on_event: Callable[[JobEvent], None]) -> None:
        self._handle = handle
        self._on_event = on_event
        self.error: PodiumError | None = None
        """What ended the watch too early."""
        self._thread = threading.Thread(target=self._run, name=f"watch-{handle.id}", daemon=True)
        self._thread.start()

    def ended(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds for the end of the job."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for event in self._handle.watch():
                self._on_event(event)
        except PodiumError as error:
            self.error = error
