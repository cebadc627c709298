"""KEDA's ExternalScaler: its trigger `external` asks the server itself, so nobody else has to publish the queue."""

import asyncio
from typing import Any

from podium.api.keda import external_scaler_service_pb2 as pb
from podium.jobs.errors import FieldViolation, InvalidSpecError
from podium.server.services.demand import PoolDemand

_METRIC = "podium-slots"
_MOST_SLOTS = 9999


class ExternalScalerServicer:
    """Slots that a pool's jobs hold or wait for, as far as machines of the pool could hold them."""

    def __init__(self, demand: PoolDemand) -> None:
        self._demand = demand

    async def IsActive(self, request: pb.ScaledObjectRef, context: Any) -> pb.IsActiveResponse:
        """See the contract."""
        return pb.IsActiveResponse(result=await self._slots(request) > 0)

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: Any) -> pb.GetMetricSpecResponse:
        """See the contract."""
        spec = pb.MetricSpec(metric_name=_METRIC, target_size=_slots_per_machine(request))
        return pb.GetMetricSpecResponse(metric_specs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> pb.GetMetricsResponse:
        """See the contract."""
        value = await self._slots(request.scaled_object_ref)
        return pb.GetMetricsResponse(metric_values=[pb.MetricValue(metric_name=_METRIC, metric_value=value)])

    async def _slots(self, request: pb.ScaledObjectRef) -> int:
        pool = _metadata(request, "pool", "the pool that is scaled")
        return await asyncio.to_thread(self._demand.slots, pool, _slots_per_machine(request))


def _slots_per_machine(request: pb.ScaledObjectRef) -> int:
    text = _metadata(request, "slotsPerMachine", "the slots of one machine of the pool")
    # Longer ones are not even read: Python refuses thousands of digits, and the contract those above 64 bits.
    if len(text) > len(str(_MOST_SLOTS)) or not text.isdecimal() or not 1 <= int(text) <= _MOST_SLOTS:
        raise _refused("slotsPerMachine", f"{text!r} is not a whole number from 1 to {_MOST_SLOTS}")
    return int(text)


def _metadata(request: pb.ScaledObjectRef, name: str, meaning: str) -> str:
    if not (value := request.scaler_metadata.get(name, "")):
        raise _refused(name, f"is missing; set it to {meaning}")
    return value


def _refused(name: str, problem: str) -> InvalidSpecError:
    return InvalidSpecError([FieldViolation(field=f"the trigger's metadata.{name}", description=problem)])
