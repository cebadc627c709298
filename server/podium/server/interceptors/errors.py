"""Every error of ours becomes its status; any other becomes INTERNAL with a reference, and a traceback in the log."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from podium.jobs.errors import InternalError, PodiumError
from podium.server.interceptors._around import Around, Call
from podium.server.status import to_status
from podium.server.unreadable import refuse_unreadable

_LOG = logging.getLogger(__name__)


class ErrorInterceptor(Around):
    """The only place that ends a call with a status."""

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Maps what the call raises."""
        try:
            refuse_unreadable()
            yield
        except PodiumError as error:
            await abort(call.context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            reference = secrets.token_hex(8)
            _LOG.exception("a fault of ours, reference %s", reference)
            message = f"a fault of the server, not of the request; report it with the reference {reference}"
            await abort(call.context, InternalError(message, metadata={"reference": reference}))


async def abort(context: Any, error: PodiumError) -> None:
    """Ends a call with the status of an error."""
    status = to_status(error)
    # abort() replaces the metadata that was set before, and the request id is in there.
    metadata = (*(context.trailing_metadata() or ()), *status.trailing_metadata)
    await context.abort(status.code, status.details, metadata)
