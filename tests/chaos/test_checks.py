"""Each check sees the violation that it is for, made by hand in a history that is otherwise good."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from podium.jobs.events import JobEvent, MetricBatch, MetricSeries, Payload, StateChange
from podium.jobs.job import Attempt, Checkpoint, Job, Progress
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Softmax
from podium.jobs.states import State
from tests.chaos import chain
from tests.chaos.checks import PROMISES, Evidence, Wanted, Watched, violations

_SPEC = JobSpec(backbone="b", tuning=FullFineTuning(), dataset=ImageFolder(train="/t"), sorter=Softmax())


def _points(first: int, last: int) -> MetricBatch:
    steps = tuple(range(first, last + 1))
    return MetricBatch(series=(MetricSeries(name="train/loss", steps=steps, values=tuple(_loss(s) for s in steps)),))


def _loss(step: int) -> float:
    return chain.after(step).loss


def _history() -> list[JobEvent]:
    """Ten steps, a checkpoint every two; the first attempt dies after step 5, of which nothing was saved."""
    first: list[Payload] = [
        StateChange(from_state=State.QUEUED, to_state=State.STARTING),
        StateChange(from_state=State.STARTING, to_state=State.RUNNING),
        _points(1, 4),
        Checkpoint(id="c4", job_id="j", attempt=1, step=4),
        _points(5, 5),
        StateChange(from_state=State.RUNNING, to_state=State.RECOVERING),
        StateChange(from_state=State.RECOVERING, to_state=State.QUEUED),
    ]
    second: list[Payload] = [
        StateChange(from_state=State.QUEUED, to_state=State.STARTING),
        StateChange(from_state=State.STARTING, to_state=State.RUNNING),
        _points(5, 10),
        Progress(phase="training", step=10),
        Checkpoint(id="c10", job_id="j", attempt=2, step=10),
        StateChange(from_state=State.RUNNING, to_state=State.SUCCEEDED),
    ]
    payloads = [
        (0, StateChange(to_state=State.QUEUED)),
        *((1, one) for one in first),
        *((2, one) for one in second),
    ]
    return _numbered([JobEvent(payload=payload, attempt=attempt) for attempt, payload in payloads])


def _numbered(events: Sequence[JobEvent]) -> list[JobEvent]:
    return [replace(event, sequence=number) for number, event in enumerate(events, start=1)]


def _job() -> Job:
    attempts = (Attempt(number=1, node="a", slot=0), Attempt(number=2, node="a", slot=0, resumed_from_step=4))
    return Job(id="j", project="p", spec=_SPEC, state=State.SUCCEEDED, attempt=2, attempts=attempts)


def _good() -> Evidence:
    events = _history()
    series = _points(1, 10).series[0]
    return Evidence(
        wanted=Wanted(steps=10, interval=2),
        job=_job(),
        events=events,
        watched=(_watched(events),),
        checkpoints=[Checkpoint(id="c10", job_id="j", attempt=2, step=10, best=True)],
        found={"c10": chain.after(10)},
        metrics={"train/loss": series},
    )


def _watched(events: Sequence[JobEvent]) -> Watched:
    return Watched(events=(JobEvent(payload=_job()), *events))


def _with_events(events: Sequence[JobEvent]) -> Evidence:
    """A history of other events, faithfully told."""
    numbered = _numbered(events)
    return replace(_good(), events=numbered, watched=(_watched(numbered),))


def _at(place: int, *events: JobEvent) -> Evidence:
    """More events before the one at a place."""
    history = _history()
    return _with_events([*history[:place], *events, *history[place:]])


def _without(*places: int) -> Evidence:
    return _with_events([event for place, event in enumerate(_history()) if place not in places])


def _letters(evidence: Evidence) -> set[str]:
    return {violation[0] for violation in violations(evidence)}


def test_a_good_history_violates_nothing():
    assert [] == violations(_good())


def _job_with(**changes: object) -> Evidence:
    return replace(_good(), job=replace(_job(), **changes))  # type: ignore[arg-type]  # parts of a job


def _metrics(steps: Sequence[int], values: Sequence[float]) -> Evidence:
    series = MetricSeries(name="train/loss", steps=tuple(steps), values=tuple(values))
    return replace(_good(), metrics={"train/loss": series})


_GOOD_VALUES = [_loss(step) for step in range(1, 11)]
_LATE = JobEvent(payload=_points(6, 6), attempt=1)
_CHECKPOINT = Checkpoint(id="c10", job_id="j", attempt=2, step=10)


@pytest.mark.parametrize(
    ("evidence", "letter"),
    [
        (replace(_good(), job=None), "a"),
        (_job_with(state=State.FAILED), "a"),
        (_metrics(range(1, 10), _GOOD_VALUES[:9]), "a"),
        (_at(13, _LATE), "b"),
        (_at(8, _LATE), "b"),
        (_at(1, JobEvent(payload=_points(1, 1))), "b"),
        (_at(10, JobEvent(payload=StateChange(from_state=State.RUNNING, to_state=State.RUNNING), attempt=2)), "b"),
        (_at(11, JobEvent(payload=_points(5, 5), attempt=2)), "b"),
        (_at(13, JobEvent(payload=_CHECKPOINT, attempt=2)), "b"),
        (_at(7, JobEvent(payload=_CHECKPOINT, attempt=1)), "b"),
        (_at(14, JobEvent(payload=Progress(phase="late"), attempt=2)), "c"),
        (_at(14, _history()[13]), "c"),
        (_without(1), "c"),
        (_without(2), "c"),
        (_job_with(state=State.RUNNING), "c"),
        (replace(_good(), found={"c10": "state.json no longer has its SHA-256"}), "d"),
        (replace(_good(), found={}), "d"),
        (replace(_good(), checkpoints=[replace(_CHECKPOINT, best=True)] * 2), "d"),
        (replace(_good(), wanted=Wanted(steps=10, interval=0)), "e"),
        (_job_with(attempts=(_job().attempts[0], replace(_job().attempts[1], resumed_from_step=2))), "e"),
        (_metrics([*range(1, 11), 10], [*_GOOD_VALUES, _loss(10)]), "e"),
        (_metrics(range(1, 11), [0.5, *_GOOD_VALUES[1:]]), "e"),
        (replace(_good(), found={"c10": chain.after(9)}), "f"),
        (replace(_good(), found={"c10": replace(chain.after(10), digest="0" * 64)}), "f"),
        (replace(_good(), checkpoints=[]), "f"),
        (_at(13, JobEvent(payload=MetricBatch.at(11, {"train/loss": 0.25}), attempt=2)), "f"),
        (replace(_good(), watched=(_watched(_history()[:-1]),)), "g"),
        (replace(_good(), watched=(_watched([*_history()[:4], *_history()[5:]]),)), "g"),
        (replace(_good(), watched=(_watched([*_history()[:4], *_history()[3:]]),)), "g"),
        (replace(_good(), watched=(_watched([replace(_history()[0], attempt=7), *_history()[1:]]),)), "g"),
        (replace(_good(), watched=(Watched(events=tuple(_history())),)), "g"),
        (replace(_good(), watched=(replace(_watched(_history()), ended=False),)), "g"),
        (replace(_good(), watched=(replace(_watched(_history()), error="the server is away"),)), "g"),
    ],
)
def test_a_violation_names_the_promise(evidence, letter):
    assert letter in _letters(evidence)


def test_what_a_watcher_was_openly_refused_is_no_violation():
    watched = replace(_watched(_history()[:3]), oldest_kept=6)

    assert [] == violations(replace(_good(), watched=(watched,)))


def test_one_more_interval_may_be_repeated_for_each_checkpoint_that_was_damaged():
    attempts = (_job().attempts[0], replace(_job().attempts[1], resumed_from_step=2))
    history = _history()
    history[10] = replace(history[10], payload=_points(3, 10))
    evidence = replace(_with_events(history), job=replace(_job(), attempts=attempts))

    assert {"e"} == _letters(evidence)
    assert [] == violations(replace(evidence, wanted=replace(evidence.wanted, damaged=1)))


def test_every_promise_has_its_check():
    assert list("abcdefg") == list(PROMISES)
