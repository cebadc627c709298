"""Why a queued job waits, asked for now and then: it changes without an event."""

from __future__ import annotations

import threading

from podium.client._job_handle import JobHandle
from podium.client.cli._board import Board
from podium.jobs.errors import PodiumError
from podium.jobs.states import State

_EVERY_SECONDS = 3.0


class Waiting:
    """Within the `with` block, the board's queue is kept fresh while its job is QUEUED."""

    def __init__(self, handle: JobHandle, board: Board) -> None:
        self._handle = handle
        self._board = board
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"waiting-{handle.id}", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            job = self._board.job
            if job is not None and job.state is State.QUEUED:
                try:
                    self._board.queue = self._handle.job().queue
                except PodiumError:
                    continue  # the watch itself says what is wrong, if it lasts
