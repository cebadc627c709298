"""Every rpc of the contract, and the statuses that its documentation names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from podium.api.keda import external_scaler_service_pb2
from podium.server.assembly import SERVICES

_PROTO = Path(__file__).parents[2] / "proto" / "podium" / "api"
#: What the head of job_service.proto and docs/errors.md say of every rpc, but for INTERNAL, which is looked for:
#: any rule of the contract may be broken, and any request be too large or too many.
ANYWHERE = frozenset(
    {
        *("OK", "INVALID_ARGUMENT", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
        *("UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"),
    }
)
_RPC = re.compile(r"((?:^ *//[^\n]*\n)*)^ *rpc (\w+)\(", re.MULTILINE)
_STATUS = re.compile(r"\b[A-Z]{2,}(?:_[A-Z]+)*\b")


@dataclass(frozen=True, kw_only=True)
class Rpc:
    """One rpc."""

    name: str
    """Such as "JobService/GetJob"."""
    path: str
    streams: bool
    request: type[Message]
    statuses: frozenset[str]
    """Those that a caller may get."""


def rpcs() -> Iterator[Rpc]:
    """All of the contract's."""
    documented = {
        name: frozenset(_STATUS.findall(comment))
        for file in _PROTO.glob("*/*_service.proto")
        for comment, name in _RPC.findall(file.read_text(encoding="utf-8"))
    }
    scaler = external_scaler_service_pb2.DESCRIPTOR.services_by_name["ExternalScaler"]
    for service in (*SERVICES.values(), scaler):
        for method in service.methods:
            yield _rpc(method, documented[method.name])


def _rpc(method: MethodDescriptor, documented: frozenset[str]) -> Rpc:
    service = method.containing_service
    return Rpc(
        name=f"{service.name}/{method.name}",
        path=f"/{service.full_name}/{method.name}",
        streams=method.server_streaming,
        request=message_factory.GetMessageClass(method.input_type),
        statuses=ANYWHERE | documented,
    )
