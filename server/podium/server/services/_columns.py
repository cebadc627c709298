"""Points out of the bytes that they are in the ledger: for who reads a million of them, and wants no message of each.

An attempt reports the same metrics over and over, so nearly all rows that are of one length have the same tags, lengths
and names at the same places, and between these steps and values. One of them is walked through. Where all that was
walked over stands in the others too, they are a table of bytes, and steps and values of a series are columns of it.

What is not laid out like others is parsed, down to a series. On the wire a message within another, a packed column and
a field of type bytes look alike: a length and as many bytes. So a row is also a message in which each series is bytes,
and each of these a message in which `steps` and `values` are.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray

from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.metric_pb2 import MetricBatch, MetricSeries
from podium.server.services._layout import FOREIGN, Layout, Table
from podium.server.services._varints import Steps, decoded

Values: TypeAlias = NDArray[np.float64]
#: Rows of one length that are parsed one by one: an array costs something even where it is short.
_FEW = 8
#: A page of which more than one row in so many is of a length of its own is parsed.
_MOST_ODD = 4
#: Layouts that are tried on rows of one length.
_TRIES = 4
#: Layouts that are remembered, one of each length.
_MOST_LAYOUTS = 4096
_OPTIONAL, _REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED


class Column(NamedTuple):
    """Points of one metric, of rows that are laid out alike, row by row."""

    name: str
    rows: Sequence[int]
    """The numbers of the rows, ascending; each has as many points."""
    steps: bytes
    """As varints."""
    values: bytes
    """As little-endian doubles."""


class Columns:
    """Takes rows apart, each the bytes of a JobEvent, page by page.

    Args:
        names: of the metrics; empty for all.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        # The name comes first in each, after its tag and its length.
        self._begin = tuple(_SERIES(name=name).SerializeToString() for name in self._names)
        self._layouts: dict[int, Layout] = {}
        self._rows = 0

    def of(self, page: Sequence[bytes]) -> Iterator[Column]:
        """The points of the next rows; in which order, `Column.rows` tells.

        Raises:
            ValueError: a row is not what a JobEvent is written as.
        """
        first, self._rows = self._rows, self._rows + len(page)
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for place, length in enumerate(map(len, page)):
            alike[length].append(place)
        if _MOST_ODD * sum(len(places) for places in alike.values() if len(places) < _FEW) > len(page):
            yield from self._parsed(page, first)
            return
        for length, places in alike.items():
            some = page if len(places) == len(page) else [page[place] for place in places]
            table = np.frombuffer(b"".join(some), np.uint8).reshape(len(some), length)
            yield from self._cut(table, first + np.array(places))

    def _cut(self, table: Table, rows: NDArray[np.intp]) -> Iterator[Column]:
        for again in range(_TRIES):
            layout = self._layout(table, new=again > 0)
            if layout is None:
                break
            fits = layout.fits(table)
            if fits.any():
                alike, numbers = (table, rows) if fits.all() else (table[fits], rows[fits])
                for name, steps, values in layout.cut(alike):
                    yield Column(name, numbers.tolist(), steps, values)
                table, rows = table[~fits], rows[~fits]
        for row, number in zip(table, rows.tolist(), strict=True):
            yield from self._parsed([row.tobytes()], number)

    def _layout(self, table: Table, *, new: bool) -> Layout | None:
        """That of the rows, or of the first of them; None: they are too few, or not as our writers make them."""
        if len(table) < _FEW:
            return None
        length = table.shape[1]
        if new or length not in self._layouts:
            if len(self._layouts) == _MOST_LAYOUTS:
                self._layouts.clear()
            try:
                self._layouts[length] = Layout(table[0].tobytes(), self._names)
            except ValueError:
                return None
        return self._layouts[length]

    def _parsed(self, rows: Iterable[bytes], number: int) -> Iterator[Column]:
        """The points of rows in their order, as if they were one."""
        try:
            series = _EVENT.FromString(b"".join(rows)).metrics.series
        except DecodeError as error:
            raise ValueError(FOREIGN) from error
        alike: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for one in series:
            if not self._names or one.startswith(self._begin):
                alike[_beginning(one)].append(one)
        for parts in alike.values():
            whole = _SERIES.FromString(b"".join(parts))
            if not self._names or whole.name in self._names:
                yield Column(whole.name, (number,), b"".join(whole.steps), b"".join(whole.values))


def _beginning(series: bytes) -> bytes:
    """The name, which comes first, after its tag and its length, where it has not more than 16,383 letters."""
    if series[:1] != b"\x0a":
        return b""
    return series[: series[1] + 2 if series[1] < 0x80 else (series[1] & 0x7F | series[2] << 7) + 3]


def points_of(columns: Sequence[Column]) -> tuple[Steps, Values]:
    """The points of one metric, in the order of their rows."""
    columns = sorted(columns, key=lambda column: column.rows[0])
    steps = decoded(_joined([column.steps for column in columns]))
    values = np.frombuffer(_joined([column.values for column in columns]), "<f8")
    if any(later.rows[0] < earlier.rows[-1] for earlier, later in pairwise(columns)):
        rows = [row for column in columns for row in column.rows]
        each = [len(column.values) // (8 * len(column.rows)) for column in columns for _ in column.rows]
        order = np.argsort(np.repeat(rows, each), kind="stable")
        return steps[order], values[order]
    return steps, values


def _joined(parts: Sequence[bytes]) -> bytes:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _messages() -> tuple[Any, Any]:
    """The classes of a JobEvent with nothing but its series, as bytes; and of a series with its columns as bytes."""
    file = FileDescriptorProto(name="podium/server/columns.proto", package="podium.columns", syntax="proto3")
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
