"""The servicers: decode, call a service in a thread, encode. One per service of the contract, and KEDA's."""

from podium.server.servicers.audit import AuditServicer
from podium.server.servicers.checkpoints import CheckpointServicer
from podium.server.servicers.jobs import JobServicer
from podium.server.servicers.logs import LogServicer
from podium.server.servicers.metrics import MetricServicer
from podium.server.servicers.nodes import NodeServicer
from podium.server.servicers.scaler import ExternalScalerServicer
from podium.server.servicers.server import ServerServicer
from podium.server.servicers.tokens import TokenServicer

__all__ = [
    "AuditServicer",
    "CheckpointServicer",
    "ExternalScalerServicer",
    "JobServicer",
    "LogServicer",
    "MetricServicer",
    "NodeServicer",
    "ServerServicer",
    "TokenServicer",
]
