"""The server's log: each line with the call and the job that it is about."""

import logging
import re
from collections.abc import Mapping

from podium.jobs import logs
from podium.jobs.tokens import without_secrets
from podium.jobs.tracing import trace_id
from podium.server.context import in_hand

_TEXT = "%(asctime)s %(levelname)s %(name)s rpc=%(rpc)s request=%(request_id)s job=%(job_id)s %(message)s"
_WELL_FORMED = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def configure(level: str) -> None:
    """Sends the log of this process to stderr.

    Raises:
        ValueError: PODIUM_LOG_FORMAT is neither text nor json.
    """
    logs.configure(_TEXT, _about, level=level)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_caller_stayed)


def _caller_stayed(record: logging.LogRecord) -> bool:
    """False of what gRPC logs, with a traceback, whenever a caller hangs up early: anybody could fill the log."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def _about() -> Mapping[str, object]:
    call = in_hand()
    return {
        "request_id": call.request_id,
        "rpc": call.rpc,
        # Not checked by anybody yet, and it must neither break a line nor give a secret away.
        "job_id": without_secrets(call.job_id) if _WELL_FORMED.fullmatch(call.job_id) else "",
        "trace_id": trace_id(call.trace_parent),
    }
