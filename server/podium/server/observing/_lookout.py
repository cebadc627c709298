"""Looks at the ledger all the time, so that whoever asks how the server is never waits for Redis."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from enum import Enum

from podium.jobs.errors import UnavailableError
from podium.jobs.store import Census, JobStore

_LOG = logging.getLogger(__name__)
#: So many times as long as a census took is none taken: in a large pool it must not cost what it tells of.
_CENSUS_REST = 50


class ServerState(Enum):
    """How a server is, in a word."""

    STARTING = "starting"
    """It has not heard from the ledger yet."""
    SERVING = "serving"
    DRAINING = "draining"
    """It stops: calls in hand may end."""
    LEDGER_LOST = "ledger-lost"
    """Calls are answered with UNAVAILABLE until the ledger is back. What trains goes on."""


class Lookout:
    """A thread that asks the ledger for a sign of life, and for a census where somebody is to be told.

    Args:
        store: the ledger.
        counts: whether to take a census.
        every: seconds between two signs of life, and between two censuses at least.
        patience: seconds of silence after which the ledger is lost.
        kept: seconds for which a census is told; an older one would be taken for how things are.
        ticks: tells seconds that only grow.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        counts: bool,
        every: float = 1.0,
        patience: float = 5.0,
        kept: float = 30.0,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._counts = counts
        self._every = every
        self._patience = patience
        self._kept = kept
        self._ticks = ticks
        self._heard: float | None = None
        self._census: tuple[Census, float] | None = None
        self._next_census = float("-inf")
        self._draining = False
        self._lost = False
        self.round_trip: float | None = None
        """Seconds that the last answer took; None: there was none yet."""
        self._first = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="podium-lookout", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Waits for the first answer of the ledger, for so long at most."""
        self._first.wait(seconds)

    def drain(self) -> None:
        """The server stops, from now on."""
        self._draining = True

    def stop(self) -> None:
        """Ends the thread after the look in hand; waits a moment for it at most."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    @property
    def up(self) -> bool:
        """Whether the ledger answered lately."""
        return self._heard is not None and self._ticks() - self._heard < self._patience

    @property
    def state(self) -> ServerState:
        """How the server is. Returns at once."""
        if self._draining:
            return ServerState.DRAINING
        if self._heard is None:
            return ServerState.STARTING
        return ServerState.SERVING if self.up else ServerState.LEDGER_LOST

    @property
    def census(self) -> Census | None:
        """The last one; None where there is none that is fresh enough to be told."""
        if self._census is None or self._ticks() - self._census[1] > self._kept:
            return None
        return self._census[0]

    def _run(self) -> None:
        while True:
            try:
                self._look()
            except UnavailableError as error:
                if not self._lost:
                    _LOG.warning("the ledger does not answer: %s", error.message)
                self._lost = True
            except Exception:
                _LOG.exception("a look at the ledger failed and is tried again")
            if self._stopping.wait(self._every):
                return

    def _look(self) -> None:
        asked = self._ticks()
        self._store.ping()
        self._heard = self._ticks()
        new = self.round_trip is None or self._lost
        self.round_trip = self._heard - asked
        self._first.set()
        if new:
            self._doubt()
        if self._lost:
            self._lost = False
            _LOG.info("the ledger answers again")
        if self._counts and self._heard >= self._next_census:
            self._census = self._store.census(), self._heard
            now = self._ticks()
            self._next_census = now + (now - self._heard) * _CENSUS_REST

    def _doubt(self) -> None:
        """Says what the ledger's own settings put at risk. They may be others after it was away."""
        # It may not tell this user, or be away again, which is said elsewhere.
        with contextlib.suppress(UnavailableError):
            for doubt in self._store.doubts():
                _LOG.warning("the ledger may lose jobs: %s", doubt)
