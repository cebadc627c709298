"""Every error of ours becomes its status; any other becomes INTERNAL with a reference, and a traceback in the log."""

import logging
import secrets
from typing import Any, NoReturn

import grpc

from podium.jobs.errors import InternalError, PodiumError
from podium.server.status import to_status

_LOG = logging.getLogger(__name__)


async def conclude(context: Any, error: Exception) -> NoReturn:
    """Ends a call that raised. The only place that ends one with a status of ours."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, PodiumError):
        reference = secrets.token_hex(8)
        _LOG.error("a fault of ours, reference %s", reference, exc_info=error)
        message = f"a fault of the server, not of the request; report it with the reference {reference}"
        error = InternalError(message, metadata={"reference": reference})
    await abort(context, error)
    raise AssertionError("a call goes on after its end")


async def abort(context: Any, error: PodiumError) -> None:
    """Ends a call with the status of an error."""
    status = to_status(error)
    # abort() replaces the metadata that was set before, and the request id is in there.
    metadata = (*(context.trailing_metadata() or ()), *status.trailing_metadata)
    await context.abort(status.code, status.details, metadata)
