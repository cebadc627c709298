"""The servicers: decode, call a service in a thread, encode. One per service of the contract, as far as it is built."""

from podium.server.servicers.checkpoints import CheckpointServicer
from podium.server.servicers.jobs import JobServicer
from podium.server.servicers.metrics import MetricServicer
from podium.server.servicers.nodes import NodeServicer
from podium.server.servicers.server import ServerServicer

__all__ = ["CheckpointServicer", "JobServicer", "MetricServicer", "NodeServicer", "ServerServicer"]
