"""Waiting for a ledger that cannot be reached: an outage is no reason to lose an attempt's work."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from podium.jobs.errors import UnavailableError

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 5.0
T = TypeVar("T")


def insist(
    call: Callable[[], T],
    *,
    sleep: Callable[[float], object] = time.sleep,
    waiting: Callable[[], object] = lambda: None,
) -> T:
    """The result of a call to the ledger, which is repeated for as long as the ledger cannot be reached.

    Args:
        call: what to do.
        sleep: waits for so many seconds.
        waiting: called before each wait.
    """
    pause = 0.1
    while True:
        try:
            return call()
        except UnavailableError as error:
            _LOG.warning("waiting for the ledger: %s", error)
            waiting()
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
