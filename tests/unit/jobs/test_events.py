"""Readers see each point once, whoever reported it again."""

from hypothesis import given
from hypothesis import strategies as st

from podium.jobs.events import MetricBatch, MetricSeries, merge_metrics


def test_points_of_one_step_carry_one_value_each() -> None:
    expected = MetricBatch(
        series=(
            MetricSeries(name="loss", steps=(3,), values=(0.5,)),
            MetricSeries(name="top5", steps=(3,), values=(0.9,)),
        )
    )
    assert expected == MetricBatch.at(3, {"loss": 0.5, "top5": 0.9})


def test_where_attempts_overlap_the_later_one_counts() -> None:
    batches = [
        (1, MetricBatch.at(10, {"loss": 1.0})),
        (1, MetricBatch.at(20, {"loss": 2.0, "top1": 0.5})),
        (2, MetricBatch.at(20, {"loss": 3.0})),
        (2, MetricBatch.at(30, {"loss": 4.0})),
    ]
    assert {"loss": {10: 1.0, 20: 3.0, 30: 4.0}, "top1": {20: 0.5}} == merge_metrics(batches)


def test_the_order_of_writing_does_not_decide_between_attempts() -> None:
    batches = [(2, MetricBatch.at(20, {"loss": 3.0})), (1, MetricBatch.at(20, {"loss": 2.0}))]
    assert {"loss": {20: 3.0}} == merge_metrics(batches)


def test_within_an_attempt_the_last_report_counts() -> None:
    batches = [(1, MetricBatch.at(20, {"loss": 1.0})), (1, MetricBatch.at(20, {"loss": 2.0}))]
    assert {"loss": {20: 2.0}} == merge_metrics(batches)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.sampled_from("ab"), st.floats(0, 1))))
def test_every_point_is_there_once_with_the_value_of_its_last_attempt(
    points: list[tuple[int, int, str, float]],
) -> None:
    merged = merge_metrics([(attempt, MetricBatch.at(step, {name: value})) for attempt, step, name, value in points])
    expected: dict[str, dict[int, float]] = {}
    for _, step, name, value in sorted(points, key=lambda point: point[0]):
        expected.setdefault(name, {})[step] = value
    assert expected == merged
