"""The log on stderr: one line an event, each with the call and the job that it is about."""

import logging

from podium.server.context import JOB, REQUEST_ID, RPC

_FORMAT = "%(asctime)s %(levelname)s %(name)s rpc=%(rpc)s request=%(request_id)s job=%(job)s %(message)s"


def configure(level: str) -> None:
    """Sends the log of this process to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.addFilter(_with_context)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _with_context(record: logging.LogRecord) -> bool:
    record.rpc, record.request_id, record.job = RPC.get(), REQUEST_ID.get(), JOB.get()
    return True
