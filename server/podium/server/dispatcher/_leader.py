"""The thread that dispatches and reconciles while this server leads."""

import logging
import threading
import time

from podium.jobs.errors import UnavailableError
from podium.jobs.store import JobStore
from podium.server.dispatcher._dispatch import Dispatcher
from podium.server.dispatcher._reconcile import Reconciler
from podium.server.dispatcher._upkeep import Upkeep
from podium.server.webhooks import Webhooks

_LOG = logging.getLogger(__name__)
#: Seconds between two renewals of the lead; far within its term.
_RENEW_EVERY = 1.0
#: So many times as long as a step took is none taken: at most a fifth of the time is spent on a line of any length.
_REST = 4


class Leader:
    """Takes the lead where nobody has it. Two leaders for a moment do no harm: every move in the ledger is atomic.

    Args:
        store: the ledger.
        dispatcher: starts what waits.
        reconciler: puts right what was cut short.
        owner: this server's name, unique among servers.
        upkeep: what else is to be done now and then; None: nothing.
        webhooks: tell the world outside of what has ended; None: nobody is told.
        tick: seconds between looks at the queue, at least.
        quiet: seconds between looks while nothing waits that a machine could take, unless somebody calls `wake`.
        reconcile_every: seconds between looks at what runs.
        term: seconds after which a silent leader is replaced.
    """

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        *,
        owner: str,
        upkeep: Upkeep | None = None,
        webhooks: Webhooks | None = None,
        tick: float = 0.25,
        quiet: float = 0.5,
        reconcile_every: float = 1.0,
        term: float = 5.0,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._upkeep = upkeep
        self._webhooks = webhooks
        self._owner = owner
        self._tick = tick
        self._quiet = quiet
        self._pause = tick
        self._reconcile_every = reconcile_every
        self._term = term
        self._reconciled = float("-inf")
        self._leads = False
        self._away = False
        self._led = float("-inf")
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="podium-leader", daemon=True)

    @property
    def leads(self) -> bool:
        """Whether this server leads; not for longer than a term without the ledger."""
        return self._leads and time.monotonic() - self._led < self._term

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wake(self) -> None:
        """Something has happened that a waiting job may be able to start by. Returns at once."""
        self._woken.set()

    def stop(self) -> None:
        """Ends after the step in hand, and gives the lead up. Blocks."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._rested():
            began = time.monotonic()
            try:
                self._step()
                self._back()
                # Not while a line is still being read for the first time: nothing starts before it is known.
                cost = time.monotonic() - began if self._dispatcher.knows_all else 0.0
                self._pause = max(self._tick, _REST * cost)
            except UnavailableError as error:
                _LOG.warning("nothing is dispatched: %s", error.message)
                self._away = True
                # A ledger that is full lets nobody lead, and nothing else makes room in it.
                self._keep_up()
                self._stopping.wait(1.0)
            except Exception:
                _LOG.exception("a step of the dispatcher failed and is tried again")
                self._stopping.wait(1.0)
        if self._webhooks is not None:
            self._webhooks.lead(False)
        try:
            self._store.resign(self._owner)
        except UnavailableError:
            _LOG.warning("the lead could not be given up; it ends by itself in %.0f s", self._term)

    def _rested(self) -> bool:
        """Waits until another step is due; whether to stop instead."""
        if not self._stopping.wait(self._pause) and self._leads and not self._dispatcher.waited_for:
            self._woken.wait(self._quiet - self._tick)
        # Before the step, so that whoever calls meanwhile is heard after it.
        self._woken.clear()
        return self._stopping.is_set()

    def _step(self) -> None:
        if not self._leads or time.monotonic() - self._led >= _RENEW_EVERY:
            self._lead()
        if not self._leads:
            return
        self._dispatcher.dispatch()
        self._reconciler.in_touch()
        if time.monotonic() - self._reconciled >= self._reconcile_every:
            self._reconciler.reconcile()
            self._reconciled = time.monotonic()
        self._keep_up()

    def _lead(self) -> None:
        leads = self._store.lead(self._owner, self._term)
        self._reconciler.in_touch()
        self._led = time.monotonic()
        if self._webhooks is not None:
            self._webhooks.lead(leads)
        if leads is not self._leads:
            self._leads = leads
            _LOG.info("%s %s", self._owner, "leads" if leads else "no longer leads")
            self._dispatcher.take_over()

    def _back(self) -> None:
        if self._away and self._upkeep is not None:
            self._upkeep.resume()
        self._away = False

    def _keep_up(self) -> None:
        if self._upkeep is not None:
            self._upkeep.nudge()
