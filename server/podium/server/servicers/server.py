"""ServerService."""

import asyncio
from collections.abc import Sequence
from typing import Any

from podium.api.v1 import catalogue_pb2
from podium.api.v1 import server_service_pb2 as pb
from podium.jobs.catalogue import SorterCard, backbones, sorters


class ServerServicer:
    """The server itself and its catalogue.

    Args:
        info: what GetServerInfo answers.
    """

    def __init__(self, info: pb.GetServerInfoResponse) -> None:
        self._info = info

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        """See the contract."""
        return self._info

    async def ListSorters(self, request: pb.ListSortersRequest, context: Any) -> pb.ListSortersResponse:
        """See the contract."""
        return pb.ListSortersResponse(sorters=[_sorter(card) for card in sorters()])

    async def ListBackbones(self, request: pb.ListBackbonesRequest, context: Any) -> pb.ListBackbonesResponse:
        """See the contract."""
        return pb.ListBackbonesResponse(backbones=await asyncio.to_thread(_backbones, request.name_contains))


def _sorter(card: SorterCard) -> catalogue_pb2.SorterInfo:
    parameters = [
        catalogue_pb2.ParameterInfo(name=item.name, default_json=item.default_json, summary=item.summary)
        for item in card.parameters
    ]
    return catalogue_pb2.SorterInfo(name=card.name, summary=card.summary, citation=card.citation, parameters=parameters)


def _backbones(name_contains: str) -> Sequence[catalogue_pb2.BackboneInfo]:
    return [
        catalogue_pb2.BackboneInfo(
            name=card.name, library=card.library, parameters=card.parameters, image_size=card.image_size
        )
        for card in backbones()
        if name_contains.lower() in card.name.lower()
    ]
