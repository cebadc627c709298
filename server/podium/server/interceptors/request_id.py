"""Gives every call an id that the caller, the log and an error report share."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from podium.server.context import begin_call
from podium.server.interceptors._call import Call, Observer

KEY = "x-request-id"
_LOG = logging.getLogger(__name__)
# It is written into the log and into metadata: nothing that could break a line.
_WELL_FORMED = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def _made() -> Iterator[str]:
    """Ids, of which the system is asked for many at a time."""
    while True:
        several = secrets.token_hex(8 * 256)
        yield from (several[at : at + 16] for at in range(0, len(several), 16))


_IDS = _made()


class RequestIds(Observer):
    """Takes the caller's x-request-id, or makes one; sends it back in the trailing metadata."""

    def before(self, call: Call) -> float:
        """Has everything that is logged from now on carry the id, the rpc and the job."""
        request_id = _given(call) or next(_IDS)
        begin_call(call.method, request_id, _job_of(call.request))
        call.context.set_trailing_metadata(((KEY, request_id),))
        return time.monotonic()

    def after(self, call: Call, kept: float, status: str) -> None:
        """Logs the call's end, once the answer is on its way: it waits for no line."""
        if _LOG.isEnabledFor(logging.INFO):
            milliseconds = (time.monotonic() - kept) * 1000
            asyncio.get_running_loop().call_soon(_LOG.info, "%s in %.1f ms", status, milliseconds)


def _job_of(request: Any) -> str:
    kind: Any = type(request)
    return request.job_id if _names_a_job(kind) else ""


@cache  # to ask a message for a field that it lacks takes as long as all else here
def _names_a_job(kind: Any) -> bool:
    # Of a stream that others serve it is no message at all.
    return hasattr(kind, "JOB_ID_FIELD_NUMBER")


def _given(call: Call) -> str:
    for key, value in call.context.invocation_metadata() or ():
        if key == KEY and isinstance(value, str) and _WELL_FORMED.fullmatch(value):
            return value
    return ""
