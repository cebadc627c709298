"""ServerService."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from podium.api.v1 import catalogue_pb2
from podium.api.v1 import server_service_pb2 as pb
from podium.jobs.catalogue import ParameterCard, SorterCard, backbones, sorters
from podium.server.services.datasets import Datasets
from podium.server.services.schema import spec_schema


class ServerServicer:
    """The server itself and its catalogue.

    Args:
        info: what GetServerInfo answers.
        datasets: finds what can be trained on.
        are_tokens_required: whether every call needs a token, now.
    """

    def __init__(
        self, info: pb.GetServerInfoResponse, datasets: Datasets, are_tokens_required: Callable[[], bool]
    ) -> None:
        self._info = info
        self._datasets = datasets
        self._are_tokens_required = are_tokens_required

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        """See the contract."""
        info = pb.GetServerInfoResponse()
        info.CopyFrom(self._info)
        info.tokens_required = self._are_tokens_required()
        return info

    async def ListSorters(self, request: pb.ListSortersRequest, context: Any) -> pb.ListSortersResponse:
        """See the contract."""
        return pb.ListSortersResponse(sorters=[_sorter(card) for card in sorters()])

    async def ListBackbones(self, request: pb.ListBackbonesRequest, context: Any) -> pb.ListBackbonesResponse:
        """See the contract."""
        return pb.ListBackbonesResponse(backbones=await asyncio.to_thread(_backbones, request.name_contains))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Any) -> pb.ListDatasetsResponse:
        """See the contract."""
        found = await self._datasets.list(request.path_contains)
        infos = [catalogue_pb2.DatasetInfo(**asdict(one)) for one in found.datasets]
        return pb.ListDatasetsResponse(datasets=infos, truncated=not found.whole)

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
