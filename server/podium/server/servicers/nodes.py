"""NodeService."""

import asyncio
from typing import Any

from podium.api.v1 import node_service_pb2 as pb
from podium.jobs import wire
from podium.jobs.store import Drain, JobStore


class NodeServicer:
    """The pool of machines."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """See the contract."""
        nodes = await asyncio.to_thread(self._store.nodes)
        chosen = [node for node in nodes if not request.pool or node.pool == request.pool]
        return pb.ListNodesResponse(nodes=[wire.to_proto(node) for node in chosen])

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Any) -> pb.DrainNodeResponse:
        """See the contract."""
        drain = Drain.FINISH if request.finish else Drain.REQUEUE
        node = await asyncio.to_thread(self._store.drain, request.node_id, drain)
        return pb.DrainNodeResponse(node=wire.to_proto(node))

    async def ResumeNode(self, request: pb.ResumeNodeRequest, context: Any) -> pb.ResumeNodeResponse:
        """See the contract."""
        node = await asyncio.to_thread(self._store.drain, request.node_id, Drain.NO)
        return pb.ResumeNodeResponse(node=wire.to_proto(node))
