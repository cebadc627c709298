"""LogService."""

from collections.abc import AsyncGenerator
from typing import Any

from podium.api.v1 import log_service_pb2 as pb
from podium.server.services.logs import Logs


class LogServicer:
    """Logs of attempts."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncGenerator[pb.ReadLogsResponse, None]:
        """See the contract."""
        return self._logs.read(request)
