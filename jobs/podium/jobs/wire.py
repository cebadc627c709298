"""The one place that converts between dataclasses and protobuf messages, by walking the descriptors.

A dataclass stands for the message of its name, a dataclass field for the message field of its name. A oneof of messages
is one dataclass field, named after the oneof, that holds one of the members. What a message leaves out takes the
dataclass's default.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from podium.api.v1 import (
    audit_pb2,
    checkpoint_pb2,
    event_pb2,
    job_pb2,
    log_pb2,
    metric_pb2,
    node_pb2,
    sorter_pb2,
    spec_pb2,
    token_pb2,
)
from podium.jobs import audit, events, job, spec, states, tokens

T = TypeVar("T")

_FILES = (
    spec_pb2,
    sorter_pb2,
    job_pb2,
    event_pb2,
    metric_pb2,
    log_pb2,
    checkpoint_pb2,
    node_pb2,
    token_pb2,
    audit_pb2,
)
_ROOMS = (spec, job, events, states, tokens, audit)

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
_TIMESTAMP = Timestamp.DESCRIPTOR.full_name
_EPOCH = datetime.fromtimestamp(0, UTC)
_Convert: TypeAlias = Callable[[Any], Any]
#: Name of a message -> name of the field that holds it.
_Members: TypeAlias = Mapping[str, str]
#: Full enum name in podium.api.v1 -> Python enum.
ENUMS: dict[str, type[Enum]] = {
    "Job.State": states.State,
    "JobError.Cause": job.Cause,
    "Node.State": job.NodeState,
    "LogLine.Level": events.Level,
    "Role": tokens.Role,
    **{
        name: cls
        for name, cls in vars(spec).items()
        if isinstance(cls, type) and issubclass(cls, Enum) and cls is not Enum
    },
}


def to_proto(value: Any, *, only: Container[str] | None = None) -> Any:
    """The message of a dataclass instance, every default written out.

    Args:
        value: the instance.
        only: names of its fields; the others are left out. None: all.
    """
    message, fields = _writing(type(value).__name__)
    arguments = {}
    for name, members, convert in fields:
        given = getattr(value, name)
        if given is not None and (only is None or name in only):
            arguments[name if members is None else _member_for(name, members, given)] = (
                convert(given) if convert else given
            )
    return message(**arguments)


def from_proto(cls: type[T], message: Message) -> T:
    """The dataclass instance of a message; what the message leaves out takes its default.

    Raises:
        TypeError: the message lacks something without a default. Validate first.
    """
    arguments = {}
    for name, read in _reading(cls.__name__):
        given = read(message)
        if given is not None:
            arguments[name] = given
    return cls(**arguments)


def completed(message: T) -> T:
    """A message with every default written out, as `to_proto` of its dataclass would have it, at a quarter of the cost.

    Unlike that it keeps what this release does not know, and it may lack what has no default.
    """
    given: Any = message
    defaults, replaced, enums, parts = _completing(given.DESCRIPTOR.name)
    whole = type(given)()
    whole.CopyFrom(defaults)
    for name in replaced:
        if getattr(given, name):
            whole.ClearField(name)
    whole.MergeFrom(given)
    for name in enums:
        if not getattr(given, name) and given.HasField(name):
            whole.ClearField(name)
            if defaults.HasField(name):
                setattr(whole, name, getattr(defaults, name))
    for field, value in given.ListFields():
        if field.name in parts:
            getattr(whole, field.name).CopyFrom(completed(value))
    filled: T = whole
    return filled


def unknown_in(message: T) -> T:
    """What of a message this release does not know, in place: a message without anything else; in no list or map."""
    given: Any = message
    left = type(given)()
    left.CopyFrom(given)
    for field, value in given.ListFields():
        left.ClearField(field.name)
        if isinstance(value, Message) and (within := unknown_in(value)).ByteSize():
            getattr(left, field.name).CopyFrom(within)
    found: T = left
    return found


def to_bytes(value: Any) -> bytes:
    """`to_proto`, serialized: the ledger's form."""
    data: bytes = to_proto(value).SerializeToString()
    return data


def digest(value: Any) -> str:
    """SHA-256 in hexadecimal of a dataclass instance or a message, the same whatever the order of their maps."""
    message = value if isinstance(value, Message) else to_proto(value)
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()


def from_bytes(cls: type[T], data: bytes) -> T:
    """The inverse of `to_bytes`."""
    message = message_factory.GetMessageClass(_DESCRIPTORS[cls.__name__])()
    message.ParseFromString(data)
    return from_proto(cls, message)


# How to convert is worked out once for each class, as asking descriptors takes ten times as long as converting.
# The stubs give descriptors two types, one for each of protobuf's engines; hence Any below.


@cache
def _writing(name: str) -> tuple[Any, tuple[tuple[str, _Members | None, _Convert | None], ...]]:
    """The class of the message, and of each field its name, its members if it is a oneof, and what converts it."""
    descriptor: Any = _DESCRIPTORS[name]
    fields: list[tuple[str, _Members | None, _Convert | None]] = []
    for field in dataclasses.fields(DATACLASSES[name]):
        target = descriptor.fields_by_name.get(field.name)
        if target is None:
            members = {member.message_type.name: member.name for member in descriptor.oneofs_by_name[field.name].fields}
            fields.append((field.name, members, to_proto))
        else:
            fields.append((field.name, None, _writer(target)))
    return message_factory.GetMessageClass(descriptor), tuple(fields)


def _writer(target: Any) -> _Convert | None:
    """None: the value is written as it is."""
    if _is_map(target):
        return None
    one: _Convert
    if target.enum_type is not None:
        one = _number
    elif target.message_type is None:
        return None
    else:
        one = stamp if target.message_type.full_name == _TIMESTAMP else to_proto
    return (lambda items: [one(item) for item in items]) if target.is_repeated else one


def _number(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def stamp(value: datetime) -> Timestamp:
    """The message of a time, which is aware."""
    since = value - _EPOCH
    # protobuf's own way, by a tuple and calendar, takes four times as long.
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def _member_for(oneof: str, members: _Members, value: Any) -> str:
    member = members.get(type(value).__name__)
    if member is None:
        raise TypeError(f"{oneof} cannot hold a {type(value).__name__}")
    return member


@cache
def _completing(name: str) -> tuple[Any, tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """The message with the defaults alone, and its fields that a given value replaces, are enums, or are messages."""
    known = {field.name: field for field in dataclasses.fields(DATACLASSES[name])}
    descriptor: Any = _DESCRIPTORS[name]
    single = [field for field in descriptor.fields if not field.is_repeated]
    values = {}
    for field in known.values():
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    message, fields = _writing(name)
    defaults = message()
    for field_name, members, convert in fields:
        if (value := values.get(field_name)) is not None:
            place = field_name if members is None else _member_for(field_name, members, value)
            defaults.MergeFrom(message(**{place: convert(value) if convert else value}))
    return (
        defaults,
        tuple(field.name for field in descriptor.fields if field.is_repeated and values.get(field.name)),
        tuple(field.name for field in single if field.enum_type is not None and field.has_presence),
        frozenset(field.name for field in single if field.message_type and field.message_type.name in DATACLASSES),
    )


@cache
def _reading(name: str) -> tuple[tuple[str, _Convert], ...]:
    """Of each field its name, and what reads it from a message: None where the default holds."""
    descriptor: Any = _DESCRIPTORS[name]
    readers = []
    for field in dataclasses.fields(DATACLASSES[name]):
        source = descriptor.fields_by_name.get(field.name)
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        readers.append((field.name, _oneof(field.name) if source is None else _reader(source, required)))
    return tuple(readers)


def _oneof(name: str) -> _Convert:
    def read(message: Any) -> Any:
        member = message.WhichOneof(name)
        return None if member is None else _dataclass(getattr(message, member))

    return read


def _reader(source: Any, required: bool) -> _Convert:
    name, one = source.name, _reader_of_one(source)
    if _is_map(source) or source.is_repeated:
        many = _reader_of_many(source, one)

        def read_many(message: Any) -> Any:
            value = getattr(message, name)
            # One without entries is not told from one that was left out: it takes the default where there is one.
            return many(value) if value or required else None

        return read_many
    if source.has_presence:

        def read_present(message: Any) -> Any:
            if not message.HasField(name):
                return None
            value = getattr(message, name)
            return value if one is None else one(value)

        return read_present
    getter = attrgetter(name)
    return getter if one is None else lambda message: one(getter(message))


def _reader_of_many(source: Any, one: _Convert | None) -> _Convert:
    if _is_map(source):
        return dict
    return tuple if one is None else lambda items: tuple([one(item) for item in items])


def _reader_of_one(source: Any) -> _Convert | None:
    """None: the value is taken as it is."""
    if source.enum_type is not None:
        enum = ENUMS[source.enum_type.full_name.removeprefix("podium.api.v1.")]
        return lambda value: enum(value) if value else None
    if source.message_type is None or _is_map(source):
        return None
    if source.message_type.full_name == _TIMESTAMP:
        return lambda stamp: stamp.ToDatetime(tzinfo=UTC)
    return _dataclass


def _dataclass(message: Message) -> Any:
    return from_proto(DATACLASSES[message.DESCRIPTOR.name], message)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
