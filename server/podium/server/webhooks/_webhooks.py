"""The threads of the couriers: they work while this server leads."""

import logging
import threading
import time
from functools import partial

from podium.jobs.errors import UnavailableError
from podium.jobs.store import JobStore
from podium.server.webhooks._courier import Courier
from podium.server.webhooks._post import post
from podium.server.webhooks._settings import WebhookSettings

_LOG = logging.getLogger(__name__)
#: Seconds after which a leader that is not heard from no longer leads.
_TERM = 5.0


class Webhooks:
    """Delivers to every receiver in a thread of its own: one that is slow or dead delays nobody else, nor the leader.

    Args:
        store: the ledger.
        settings: the receivers.
    """

    def __init__(self, store: JobStore, settings: WebhookSettings) -> None:
        send = partial(post, allow_private=settings.allow_private)
        self._couriers = [Courier(webhook, store, send) for webhook in settings.webhooks]
        self._led_until = float("-inf")
        self._wake = threading.Condition()
        self._started = False

    def lead(self, leads: bool) -> None:
        """Says whether this server leads; again and again, as a lead that is not renewed ends. Returns at once."""
        with self._wake:
            self._led_until = time.monotonic() + _TERM if leads else float("-inf")
            self._wake.notify_all()
        if leads and not self._started:
            self._started = True
            for courier in self._couriers:
                # A daemon: what it is at when the process ends is delivered again, by whoever leads next.
                threading.Thread(target=self._run, args=(courier,), name="podium-webhook", daemon=True).start()

    def _run(self, courier: Courier) -> None:
        while True:
            if not self._leads():
                courier.forget()
                with self._wake:
                    self._wake.wait_for(self._leads)
            try:
                rest = courier.step()
            except UnavailableError as error:
                _LOG.warning("no webhook is delivered: %s", error.message)
                rest = 1.0
            except Exception:
                _LOG.exception("a step of a webhook's courier failed and is tried again")
                rest = 1.0
            time.sleep(rest)

    def _leads(self) -> bool:
        return time.monotonic() < self._led_until
