"""Where everything stands in rows of the ledger that are laid out alike."""

from collections.abc import Collection, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.metric_pb2 import MetricBatch, MetricSeries

#: Rows of one length, one below the other.
Table: TypeAlias = NDArray[np.uint8]
FOREIGN = "a row of points is not what our writers make"

_METRICS, _SERIES = JobEvent.METRICS_FIELD_NUMBER, MetricBatch.SERIES_FIELD_NUMBER
_NAME, _STEPS, _VALUES = (
    MetricSeries.NAME_FIELD_NUMBER,
    MetricSeries.STEPS_FIELD_NUMBER,
    MetricSeries.VALUES_FIELD_NUMBER,
)
#: How fields go on after their tags, on the wire.
_VARINT, _BYTES = 0, 2
#: Bytes of a number there.
_LONGEST = 10
_NOWHERE = slice(0, 0)


class Layout:
    """Where everything stands in rows that are laid out alike.

    Args:
        row: one of them.
        names: of the metrics that are asked for; empty for all.

    Raises:
        ValueError: it is no JobEvent as our writers make them.
    """

    def __init__(self, row: bytes, names: Collection[str]) -> None:
        self._series: list[tuple[str, slice, slice]] = []
        fixed = np.ones(len(row), np.bool_)
        for number, contents in _fields(row, slice(0, len(row))):
            if number != _METRICS:
                fixed[contents] = False
                continue
            for series in (its for number, its in _fields(row, contents) if number == _SERIES):
                fields = _fields(row, series)
                if len(found := dict(fields)) < len(fields):
                    raise ValueError(FOREIGN)
                name = row[found.get(_NAME, _NOWHERE)].decode()
                steps, values = found.get(_STEPS, _NOWHERE), found.get(_VALUES, _NOWHERE)
                fixed[steps] = fixed[values] = False
                if not names or name in names:
                    self._series.append((name, steps, values))
        self._fixed = np.flatnonzero(fixed)
        self._octets = np.frombuffer(row, np.uint8)[self._fixed]

    def fits(self, table: Table) -> NDArray[np.bool_]:
        """Of each row whether it is laid out so."""
        same: NDArray[np.bool_] = (table.take(self._fixed, axis=1) == self._octets).all(axis=1)
        return same

    def cut(self, table: Table) -> Iterator[tuple[str, bytes, bytes]]:
        """Of rows that are laid out so each series: its name, and its steps and values of all of them."""
        for name, steps, values in self._series:
            yield name, table[:, steps].tobytes(), table[:, values].tobytes()


def _fields(row: bytes, message: slice) -> list[tuple[int, slice]]:
    """The fields of a message that are bytes or messages, by number, and where their contents stand."""
    at, end = message.start, message.stop
    fields: list[tuple[int, slice]] = []
    while at < end:
        tag, at = (row[at], at + 1) if row[at] < 0x80 else _varint(row, at)
        number, at = _varint(row, at)
        if tag & 7 == _BYTES:
            fields.append((tag >> 3, slice(at, at := at + number)))
        if tag & 7 not in (_VARINT, _BYTES) or at > end:
            raise ValueError(FOREIGN)
    return fields


def _varint(row: bytes, at: int) -> tuple[int, int]:
    """A number, and where what follows it begins."""
    number = shift = 0
    for place, octet in enumerate(row[at : at + _LONGEST], at + 1):
        if octet < 0x80:
            return number | octet << shift, place
        number |= (octet & 0x7F) << shift
        shift += 7
    raise ValueError(FOREIGN)
