"""Points are read out of bytes as protobuf wrote them, however alike or different the rows are."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.api.v1 import event_pb2, metric_pb2
from podium.server.services._columns import Column, Columns, points_of

steps = st.one_of(st.integers(0, 130), st.integers(0, 2**64 - 1))
points = st.lists(st.tuples(steps, st.floats(allow_nan=False)), max_size=4)


@st.composite
def rows(draw: st.DrawFn) -> event_pb2.JobEvent:
    """Of few names and few layouts, so that rows are alike, or nearly."""
    event = event_pb2.JobEvent(attempt=draw(st.integers(0, 300)))
    event.time.seconds = draw(st.sampled_from([0, 1, 2**40]))
    if draw(st.integers(0, 3)) == 0:
        event.log.lines.add(text="x" * draw(st.integers(0, 40)))
        return event
    for name in draw(st.lists(st.sampled_from(["", "a", "b", "ab"]), max_size=3)):
        its = draw(points)
        event.metrics.series.add(name=name, steps=[step for step, _ in its], values=[value for _, value in its])
    return event


@given(
    pages=st.lists(st.lists(st.tuples(rows(), st.sampled_from([1, 1, 9])), max_size=6), max_size=3),
    names=st.sets(st.sampled_from(["a", "b"])),
)
def test_the_points_of_rows_are_those_of_their_messages_in_their_order(pages, names):
    wanted: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    found: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    reader = Columns(names)
    for page in pages:
        events = [event for event, times in page for _ in range(times)]
        pieces = defaultdict(list)
        for column in reader.of([event.SerializeToString() for event in events]):
            pieces[column.name].append(column)
        for name, its in pieces.items():
            found[name] += zip(*(part.tolist() for part in points_of(its)), strict=True)
        for series in (series for event in events for series in event.metrics.series):
            if not names or series.name in names:
                wanted[series.name] += zip(series.steps, series.values, strict=True)

    assert {name: points for name, points in wanted.items() if points} == {
        name: points for name, points in found.items() if points
    }


@given(values=st.lists(st.one_of(*(st.integers(0, 2**bits - 1) for bits in (7, 14, 21, 28, 56, 64)))))
def test_a_column_of_varints_is_read_as_protobuf_wrote_it(values):
    series = metric_pb2.MetricSeries(steps=values, values=[0.0] * len(values))
    row = event_pb2.JobEvent(metrics=metric_pb2.MetricBatch(series=[series])).SerializeToString()

    assert values == points_of(list(Columns(()).of([row])))[0].tolist()


def test_steps_take_half_of_the_memory_where_they_are_small():
    def column(*numbers: int) -> Column:
        series = metric_pb2.MetricSeries(steps=numbers, values=[0.0] * len(numbers))
        row = event_pb2.JobEvent(metrics=metric_pb2.MetricBatch(series=[series])).SerializeToString()
        return next(Columns(()).of([row]))

    assert [np.uint32, np.uint64] == [
        points_of([column(*some)])[0].dtype for some in ([0, 127, 128, 2**28 - 1], [1, 2**28])
    ]


@pytest.mark.parametrize("row", [b"\x32\x7f\x0a", b"\x33\x00", b"\x32"])
@pytest.mark.parametrize("times", [1, 20])
def test_bytes_that_are_no_event_are_refused(row, times):
    with pytest.raises(ValueError, match="a row of points is not what our writers make"):
        list(Columns(()).of([row] * times))


def test_columns_in_pieces_are_put_together():
    pieces = [metric_pb2.MetricSeries(name="a", steps=[n], values=[n]).SerializeToString() for n in range(2)]
    whole = b"".join(pieces)
    row = bytes([0x32, len(whole) + 2, 0x0A, len(whole)]) + whole

    (column,) = Columns(()).of([row])
    assert [[0, 1], [0.0, 1.0]] == [part.tolist() for part in points_of([column])]
    many = [part.tolist() for part in points_of(list(Columns(()).of([row] * 20)))]
    assert [[0, 1] * 20, [0.0, 1.0] * 20] == many
