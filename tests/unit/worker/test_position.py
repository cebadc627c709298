"""Where a training stands, and what it remembers of its evaluations."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from podium.worker.fit.position import Position

values = st.lists(
    st.fixed_dictionaries(
        {"top1": st.floats(0, 1), "top5": st.floats(0, 1), "loss": st.floats(0, 10) | st.just(math.nan)}
    ),
    min_size=1,
    max_size=20,
)


@given(values)
def test_the_best_of_every_monitor_is_the_first_of_its_best_values(evaluations):
    at = Position()
    for step, metrics in enumerate(evaluations, 1):
        at.step = step
        at.improved(metrics, ("top5", "loss", "top1"))

    finite = {step: metrics for step, metrics in enumerate(evaluations, 1) if math.isfinite(metrics["loss"])}
    for name, choose in (("top1", max), ("top5", max), ("loss", min)):
        if not finite:
            assert at.best == {}
        else:
            best = choose(metrics[name] for metrics in finite.values())
            assert at.best[name].value == best
            assert at.best[name].step == min(step for step, metrics in finite.items() if metrics[name] == best)


@given(values)
def test_patience_counts_the_evaluations_since_the_first_monitor_was_last_better(evaluations):
    at = Position()
    for step, metrics in enumerate(evaluations, 1):
        at.step = step
        at.improved(metrics, ("top1", "loss"))

    last = at.best["top1"].step if "top1" in at.best else 0
    assert at.stale == len(evaluations) - last


@given(values)
def test_a_position_survives_a_checkpoint(evaluations):
    at = Position(step=3, evaluated=2, stopped=True)
    at.improved(evaluations[0], ("loss", "top1"))

    assert Position.from_json(json.loads(json.dumps(at.to_json()))) == at
