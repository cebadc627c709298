"""The one place that converts between dataclasses and protobuf messages, by walking the descriptors.

A dataclass stands for the message of its name, a dataclass field for the message field of its name. A oneof of messages
is one dataclass field, named after the oneof, that holds one of the members. What a message leaves out takes the
dataclass's default.
"""

import dataclasses
import hashlib
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from podium.api.v1 import checkpoint_pb2, event_pb2, job_pb2, log_pb2, metric_pb2, node_pb2, sorter_pb2, spec_pb2
from podium.jobs import events, job, spec, states

T = TypeVar("T")

_FILES = (spec_pb2, sorter_pb2, job_pb2, event_pb2, metric_pb2, log_pb2, checkpoint_pb2, node_pb2)
_ROOMS = (spec, job, events, states)

#: Message name -> dataclass. Messages without a dataclass of their name never reach the inside.
DATACLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for module in _ROOMS
    for cls in vars(module).values()
    if isinstance(cls, type) and dataclasses.is_dataclass(cls)
}
_DESCRIPTORS: dict[str, Descriptor] = {
    descriptor.name: descriptor for file in _FILES for descriptor in file.DESCRIPTOR.message_types_by_name.values()
}
#: A list or a map without entries is not told from one that was left out: it takes the default where there is one.
_EMPTY: tuple[Any, ...] = ((), {})
#: Full enum name in podium.api.v1 -> Python enum.
ENUMS: dict[str, type[Enum]] = {
    "Job.State": states.State,
    "JobError.Cause": job.Cause,
    "Node.State": job.NodeState,
    "LogLine.Level": events.Level,
    **{
        name: cls
        for name, cls in vars(spec).items()
        if isinstance(cls, type) and issubclass(cls, Enum) and cls is not Enum
    },
}


def to_proto(value: Any) -> Any:
    """The message of a dataclass instance, every default written out."""
    message = message_factory.GetMessageClass(_DESCRIPTORS[type(value).__name__])()
    for field in dataclasses.fields(value):
        _write(message, field.name, getattr(value, field.name))
    return message


def from_proto(cls: type[T], message: Message) -> T:
    """The dataclass instance of a message; what the message leaves out takes its default.

    Raises:
        TypeError: the message lacks something without a default. Validate first.
    """
    arguments = {
        field.name: value
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]  # T is a dataclass
        if (value := _read(message, field.name)) is not None and (value not in _EMPTY or _required(field))
    }
    return cls(**arguments)


def to_bytes(value: Any) -> bytes:
    """`to_proto`, serialized: the ledger's form."""
    data: bytes = to_proto(value).SerializeToString()
    return data


def digest(value: Any) -> str:
    """SHA-256 in hexadecimal, the same for equal values whatever the order of their maps."""
    return hashlib.sha256(to_proto(value).SerializeToString(deterministic=True)).hexdigest()


def from_bytes(cls: type[T], data: bytes) -> T:
    """The inverse of `to_bytes`."""
    message = message_factory.GetMessageClass(_DESCRIPTORS[cls.__name__])()
    message.ParseFromString(data)
    return from_proto(cls, message)


# The stubs give descriptors two types, one for each of protobuf's engines; hence Any below.


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _write(message: Message, name: str, value: Any) -> None:
    if value is None:
        return
    target = message.DESCRIPTOR.fields_by_name.get(name)
    if target is None:
        target = _member_for(message.DESCRIPTOR.oneofs_by_name[name], type(value).__name__)
    if _is_map(target):
        getattr(message, target.name).update(value)
    elif target.is_repeated:
        getattr(message, target.name).extend(_to_wire(item) for item in value)
    elif target.message_type is not None:
        getattr(message, target.name).CopyFrom(_to_wire(value))
    else:
        setattr(message, target.name, _to_wire(value))


def _to_wire(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        stamp = Timestamp()
        stamp.FromDatetime(value)
        return stamp
    return to_proto(value) if dataclasses.is_dataclass(value) else value


def _read(message: Message, name: str) -> Any:
    """The value of a field or of a oneof of messages; None where the default holds."""
    source = message.DESCRIPTOR.fields_by_name.get(name)
    if source is None:
        member = message.WhichOneof(name)
        if member is None:
            return None
        source = message.DESCRIPTOR.fields_by_name[member]
    value = getattr(message, source.name)
    if _is_map(source):
        return dict(value)
    if source.is_repeated:
        return tuple(_from_wire(source, item) for item in value)
    if source.has_presence and not message.HasField(source.name):
        return None
    return _from_wire(source, value)


def _from_wire(source: Any, value: Any) -> Any:
    if source.enum_type is not None:
        return _enum(source.enum_type.full_name)(value) if value else None
    if source.message_type is None:
        return value
    if isinstance(value, Timestamp):
        return value.ToDatetime(tzinfo=UTC)
    return from_proto(DATACLASSES[source.message_type.name], value)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


@cache
def _enum(full_name: str) -> type[Enum]:
    return ENUMS[full_name.removeprefix("podium.api.v1.")]


def _member_for(oneof: Any, message_name: str) -> Any:
    for member in oneof.fields:
        if member.message_type is not None and member.message_type.name == message_name:
            return member
    raise TypeError(f"{oneof.name} cannot hold a {message_name}")
