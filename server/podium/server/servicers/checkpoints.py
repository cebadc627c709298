"""CheckpointService."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from podium.api.v1 import checkpoint_service_pb2 as pb
from podium.jobs import wire
from podium.server.services.checkpoints import Checkpoints


class CheckpointServicer:
    """Checkpoints: list, read, delete."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Any) -> pb.ListCheckpointsResponse:
        """See the contract."""
        found = await asyncio.to_thread(self._checkpoints.list, request.job_id)
        return pb.ListCheckpointsResponse(checkpoints=[wire.to_proto(item) for item in found])

    async def ReadCheckpoint(
        self, request: pb.ReadCheckpointRequest, context: Any
    ) -> AsyncIterator[pb.ReadCheckpointResponse]:
        """See the contract."""
        reading = await asyncio.to_thread(self._checkpoints.open, request.checkpoint_id, request.file, request.offset)
        try:
            # The first message comes even where there are no bytes left: it names the whole file.
            chunk = await asyncio.to_thread(reading.next)
            yield pb.ReadCheckpointResponse(data=chunk, file=wire.to_proto(reading.file))
            while chunk := await asyncio.to_thread(reading.next):
                yield pb.ReadCheckpointResponse(data=chunk)
        finally:
            await asyncio.to_thread(reading.close)

    async def DeleteCheckpoint(self, request: pb.DeleteCheckpointRequest, context: Any) -> pb.DeleteCheckpointResponse:
        """See the contract."""
        await asyncio.to_thread(self._checkpoints.delete, request.checkpoint_id)
        return pb.DeleteCheckpointResponse()
