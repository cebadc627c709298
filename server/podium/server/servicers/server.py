"""ServerService."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from podium.api.v1 import catalogue_pb2
from podium.api.v1 import server_service_pb2 as pb
from podium.jobs.catalogue import ParameterCard, SorterCard, backbones, sorters
from podium.server.services.schema import spec_schema


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

    async def GetSpecSchema(self, request: pb.GetSpecSchemaRequest, context: Any) -> pb.GetSpecSchemaResponse:
        """See the contract."""
        return pb.GetSpecSchemaResponse(json_schema=await asyncio.to_thread(spec_schema))


def _sorter(card: SorterCard) -> catalogue_pb2.SorterInfo:
    return catalogue_pb2.SorterInfo(
        name=card.name,
        summary=card.summary,
        citation=card.citation,
        parameters=[_parameter(item) for item in card.parameters],
        cost=card.cost,
        caveats=card.caveats,
        baseline=card.baseline,
    )


def _parameter(card: ParameterCard) -> catalogue_pb2.ParameterInfo:
    return catalogue_pb2.ParameterInfo(
        name=card.name,
        default_json=json.dumps(card.default),
        summary=card.summary,
        above=card.above,
        at_least=card.at_least,
        below=card.below,
        at_most=card.at_most,
        choices=card.choices,
    )


def _backbones(name_contains: str) -> Sequence[catalogue_pb2.BackboneInfo]:
    return [
        catalogue_pb2.BackboneInfo(
            name=card.name, library=card.library, parameters=card.parameters, image_size=card.image_size
        )
        for card in backbones()
        if name_contains.lower() in card.name.lower()
    ]
