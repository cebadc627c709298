"""MetricService."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from podium.api.v1 import metric_service_pb2 as pb
from podium.jobs import wire
from podium.server.services.metrics import Metrics

#: Queries that are answered at the same time, as one of a long history takes some 30 MB and most of a core; more wait.
_AT_ONCE = 2


class MetricServicer:
    """Metrics history."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Few threads have the memory for it, too: what a thread has freed, the C library keeps for that thread.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="podium-metrics")

    async def QueryMetrics(self, request: pb.QueryMetricsRequest, context: Any) -> pb.QueryMetricsResponse:
        """See the contract."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, copy_context().run, self._query, request)

    def _query(self, request: pb.QueryMetricsRequest) -> pb.QueryMetricsResponse:
        series = self._metrics.query(
            request.job_id,
            names=frozenset(request.names),
            first_step=request.first_step,
            last_step=request.last_step if request.HasField("last_step") else None,
            max_points=request.max_points,
        )
        return pb.QueryMetricsResponse(series=[wire.to_proto(item) for item in series])
