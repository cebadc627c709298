"""Puts the server together: services of the contract, health, reflection, interceptors, in their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from podium.api.keda import external_scaler_service_pb2
from podium.api.v1 import (
    audit_service_pb2,
    checkpoint_service_pb2,
    job_service_pb2,
    log_service_pb2,
    metric_service_pb2,
    node_service_pb2,
    server_service_pb2,
    token_service_pb2,
)
from podium.server.access import Door
from podium.server.audit import AuditWriter
from podium.server.health import Health
from podium.server.interceptors import (
    Access,
    Audit,
    Chain,
    Observer,
    RequestIds,
)
from podium.server.interceptors.deadline import LONGEST
from podium.server.interceptors.errors import abort
from podium.server.observing import ServerState
from podium.server.unreadable import Foreign, reader

MAX_MESSAGE_BYTES = 4 << 20
MAX_CONCURRENT_RPCS = 2000
#: Calls that one connection may have open; more wait at their caller. So that none reaches the limit of all by itself.
MAX_CONCURRENT_STREAMS = 1000

#: Every service of the contract.
SERVICES: Mapping[str, ServiceDescriptor] = {
    service.name: service
    for file in (
        job_service_pb2,
        metric_service_pb2,
        checkpoint_service_pb2,
        log_service_pb2,
        node_service_pb2,
        server_service_pb2,
        token_service_pb2,
        audit_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
}

#: Not of the contract: KEDA scales workers by it.
_SCALER: ServiceDescriptor = external_scaler_service_pb2.DESCRIPTOR.services_by_name["ExternalScaler"]

_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A page of metrics, all series at once, may be more; clients have a limit of their own.
    ("grpc.max_send_message_length", 32 << 20),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    # For who connects and says nothing; the default is two minutes.
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Not the widely copied grpc.http2.min_recv_ping_interval_without_data_ms, which is ignored without a word.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Who lets calls in, and who notes what they did."""

    door: Door
    audit: AuditWriter


class Assembled:
    """A grpc.aio server and its health.

    Args:
        servicers: by service name; for an rpc that they lack gRPC itself says UNIMPLEMENTED.
        with_reflection: whether the server describes its contract.
        observers: see what comes of everything within.
        shares_port: whether others may listen on its port, too.
        longest: seconds that a call which answers once may take.
        guard: None: everybody may do everything, and nobody notes it.
    """

    def __init__(
        self,
        servicers: Mapping[str, object],
        *,
        with_reflection: bool,
        observers: Sequence[Observer] = (),
        guard: Guard | None = None,
        shares_port: bool = False,
        longest: float = LONGEST,
    ) -> None:
        access = Access(guard.door) if guard else None
        chain = Chain((RequestIds(), *observers, *((Audit(guard.audit),) if guard else ())), access, longest)
        self.server = grpc.aio.server(
            # Two servers that know nothing of one another would share the callers of a port unnoticed.
            options=(*_OPTIONS, ("grpc.so_reuseport", int(shares_port))),
            maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS,
        )
        services = (*SERVICES.values(), _SCALER)
        names = [service.full_name for service in services]
        self._health = Health(names)
        # Health is nobody's business and everybody's; reflection asks for a token.
        foreign: Any = Foreign(self.server, abort, partial(chain.streaming, foreign=True))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, foreign)
        for service in services:
            self.server.add_generic_rpc_handlers((_handlers(service, servicers.get(service.name), chain),))
        if with_reflection:
            described = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]  # has no types
                reflection.aio.ReflectionServicer(described), foreign
            )
        unknown = [one for one in observers if isinstance(one, grpc.GenericRpcHandler)]
        # Last, as gRPC asks one after the other: they see the rpcs that there are not.
        self.server.add_generic_rpc_handlers(unknown)

    def set_health(self, state: ServerState) -> None:
        """Tells health checks how the server is."""
        self._health.set(state)


def _handlers(service: ServiceDescriptor, servicer: object | None, chain: Chain) -> grpc.GenericRpcHandler:
    built = {method.name: getattr(servicer, method.name, None) for method in service.methods}
    return grpc.method_handlers_generic_handler(
        service.full_name,
        {method.name: _handler(method, built[method.name], chain) for method in service.methods if built[method.name]},
    )


def _handler(method: MethodDescriptor, behaviour: Any, chain: Chain) -> Any:
    name, streams = f"{method.containing_service.name}/{method.name}", method.server_streaming
    wrap = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    around = chain.streaming if streams else chain.answering
    request = message_factory.GetMessageClass(method.input_type)
    return wrap(
        around(name, behaviour), request_deserializer=reader(request.FromString), response_serializer=_serialized
    )


def _serialized(response: Message | bytes) -> bytes:
    """What was serialized once for many callers goes out as it is."""
    return response if isinstance(response, bytes) else response.SerializeToString()
