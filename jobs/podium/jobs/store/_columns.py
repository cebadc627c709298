"""Points as the bytes that they are in the ledger: for who reads a million of them.

On the wire a packed column is a length and its bytes, exactly like a field of type bytes. So the very rows that hold a
JobEvent are also messages in which `steps` and `values` are bytes; read as such, they cost something a series, and
nothing a point.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.metric_pb2 import MetricBatch, MetricSeries

_OPTIONAL, _REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED


_TOGETHER = 32
#: Some points of one metric, in the order they were written: its name; the steps, as varints; as many values, as
#: little-endian doubles. There may be a million of these: a tuple costs least.
Column: TypeAlias = tuple[str, bytes, bytes]


def columns_of(rows: Iterable[bytes], names: Collection[str] = ()) -> Iterator[Column]:
    """The points in the bytes of many a JobEvent that our writers made, of these metrics alone; empty: of all."""
    rest = iter(rows)
    # Messages of one type, one after the other, are their union: a few at a time cost less than each alone.
    while some := b"".join(islice(rest, _TOGETHER)):
        for series in _EVENT.FromString(some).metrics.series:
            name = series.name
            if not names or name in names:
                yield name, series.steps, series.values


def _event() -> Any:
    """The class of JobEvent with nothing but its points, their columns as bytes."""
    file = FileDescriptorProto(name="podium/jobs/columns.proto", package="podium.columns", syntax="proto3")
    text, octets = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES
    for original, fields in (
        (MetricSeries, {"name": text, "steps": octets, "values": octets}),
        (MetricBatch, {"series": "MetricSeries"}),
        (JobEvent, {"metrics": "MetricBatch"}),
    ):
        described = file.message_type.add(name=original.DESCRIPTOR.name)
        for name, kind in fields.items():
            field = described.field.add(name=name, number=original.DESCRIPTOR.fields_by_name[name].number)
            field.label = _REPEATED if name == "series" else _OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".podium.columns.{kind}"
            else:
                field.type = kind
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("podium.columns.JobEvent"))


_EVENT = _event()
