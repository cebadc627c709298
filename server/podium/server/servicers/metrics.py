"""MetricService."""

import asyncio
from typing import Any

from podium.api.v1 import metric_service_pb2 as pb
from podium.jobs import wire
from podium.server.services.metrics import Metrics


class MetricServicer:
    """Metrics history."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def QueryMetrics(self, request: pb.QueryMetricsRequest, context: Any) -> pb.QueryMetricsResponse:
        """See the contract."""
        return await asyncio.to_thread(self._query, request)

    def _query(self, request: pb.QueryMetricsRequest) -> pb.QueryMetricsResponse:
        series = self._metrics.query(
            request.job_id,
            names=frozenset(request.names),
            first_step=request.first_step,
            last_step=request.last_step if request.HasField("last_step") else None,
            max_points=request.max_points,
        )
        return pb.QueryMetricsResponse(series=[wire.to_proto(item) for item in series])
