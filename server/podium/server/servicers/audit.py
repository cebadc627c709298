"""AuditService."""

import asyncio
from typing import Any

from podium.api.v1 import audit_service_pb2 as pb
from podium.jobs import wire
from podium.server.services.audit import Trail


class AuditServicer:
    """The audit trail."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Any) -> pb.ListAuditEventsResponse:
        """See the contract."""
        events, token = await asyncio.to_thread(
            self._trail.page,
            project=request.project,
            target=request.target,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListAuditEventsResponse(events=[wire.to_proto(event) for event in events], next_page_token=token)
