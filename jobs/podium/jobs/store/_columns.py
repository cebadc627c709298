"""Points as the bytes that they are in the ledger: for who reads a million of them.

On the wire a message within another, a packed column and a field of type bytes look alike: a length and as many bytes.
So the very rows that hold a JobEvent are also messages in which each series is bytes, and each of these a message in
which `steps` and `values` are. Read as such, an unwanted series costs a comparison, a wanted one little more, and a
point nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeAlias

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.metric_pb2 import MetricBatch, MetricSeries

_OPTIONAL, _REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED

#: Bytes that are read together: a message costs something even where it is short.
_TOGETHER = 256 << 10
#: Some points of one metric, in the order they were written: its name; the steps, as varints; as many values, as
#: little-endian doubles. There may be a million of these: a tuple costs least.
Column: TypeAlias = tuple[str, bytes, bytes]


def columns_of(rows: Iterable[bytes], names: Collection[str] = ()) -> Iterator[Column]:
    """The points in the bytes of many a JobEvent that our writers made, of these metrics alone; empty: of all.

    Args:
        rows: each one such message, or several one after the other.
        names: the metrics.
    """
    wanted = tuple(_SERIES(name=name).SerializeToString() for name in names)
    for some in _together(rows):
        series = list(_EVENT.FromString(some).metrics.series)
        alike: defaultdict[bytes, list[bytes]] = defaultdict(list)
        # The name comes first in each, after its tag and its length.
        for one in [one for one in series if one.startswith(wanted)] if wanted else series:
            alike[one[: one[1] + 2 if one[1] < 0x80 else (one[1] & 0x7F | one[2] << 7) + 3]].append(one)
        for parts in alike.values():
            whole = _SERIES.FromString(b"".join(parts))
            yield whole.name, b"".join(whole.steps), b"".join(whole.values)


def _together(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Messages of one type, one after the other, are their union."""
    some: list[bytes] = []
    size = 0
    for row in rows:
        some.append(row)
        size += len(row)
        if size >= _TOGETHER:
            yield b"".join(some)
            some, size = [], 0
    if some:
        yield b"".join(some)


def _messages() -> tuple[Any, Any]:
    """The classes of a JobEvent with nothing but its series, as bytes; and of a series with its columns as bytes."""
    file = FileDescriptorProto(name="podium/jobs/columns.proto", package="podium.columns", syntax="proto3")
    text, octets, message = (
        FieldDescriptorProto.TYPE_STRING,
        FieldDescriptorProto.TYPE_BYTES,
        FieldDescriptorProto.TYPE_MESSAGE,
    )
    for original, fields in (
        (MetricSeries, {"name": (text, _OPTIONAL), "steps": (octets, _REPEATED), "values": (octets, _REPEATED)}),
        (MetricBatch, {"series": (octets, _REPEATED)}),
        (JobEvent, {"metrics": (message, _OPTIONAL)}),
    ):
        described = file.message_type.add(name=original.DESCRIPTOR.name)
        for name, (kind, label) in fields.items():
            field = described.field.add(name=name, number=original.DESCRIPTOR.fields_by_name[name].number)
            field.type, field.label = kind, label
            if kind == message:
                field.type_name = ".podium.columns.MetricBatch"
    pool = DescriptorPool()
    pool.Add(file)
    event, series = (pool.FindMessageTypeByName(f"podium.columns.{name}") for name in ("JobEvent", "MetricSeries"))
    return GetMessageClass(event), GetMessageClass(series)


_EVENT, _SERIES = _messages()
