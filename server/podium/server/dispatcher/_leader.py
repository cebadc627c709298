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


class Leader:
    """Takes the lead where nobody has it. Two leaders for a moment do no harm: every move in the ledger is atomic.

    Args:
        store: the ledger.
        dispatcher: starts what waits.
        reconciler: puts right what was cut short.
        owner: this server's name, unique among servers.
        upkeep: what else is to be done now and then; None: nothing.
        webhooks: tell the world outside of what has ended; None: nobody is told.
        tick: seconds between looks at the queue.
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
        self._reconcile_every = reconcile_every
        self._term = term
        self._reconciled = float("-inf")
        self._leads = False
        self._led = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="podium-leader", daemon=True)

    @property
    def leads(self) -> bool:
        """Whether this server leads; not for longer than a term without the ledger."""
        return self._leads and time.monotonic() - self._led < self._term

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the step in hand, and gives the lead up. Blocks."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._tick):
            try:
                self._step()
            except UnavailableError as error:
                _LOG.warning("nothing is dispatched: %s", error.message)
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

    def _step(self) -> None:
        leads = self._store.lead(self._owner, self._term)
        self._reconciler.in_touch()
        self._led = time.monotonic()
        if self._webhooks is not None:
            self._webhooks.lead(leads)
        if leads is not self._leads:
            self._leads = leads
            _LOG.info("%s %s", self._owner, "leads" if leads else "no longer leads")
            self._dispatcher.take_over()
        if not leads:
            return
        self._dispatcher.dispatch()
        if time.monotonic() - self._reconciled >= self._reconcile_every:
            self._reconciler.reconcile()
            self._reconciled = time.monotonic()
        self._keep_up()

    def _keep_up(self) -> None:
        if self._upkeep is not None:
            self._upkeep.nudge()
