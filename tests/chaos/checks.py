"""The seven promises of docs/architecture.md, each as a question to the ledger and the event stream of a job.

Every check yields a sentence for each violation; the letter of the promise goes before it. Logs are never read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from podium.jobs.events import JobEvent, MetricBatch, MetricSeries, StateChange, merge_metrics
from podium.jobs.job import Checkpoint, Job, Progress
from podium.jobs.states import MOVES, State
from tests.chaos import chain


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a watcher saw."""

    events: Sequence[JobEvent]
    """The snapshot, then what came."""
    oldest_kept: int = 0
    """What an OUT_OF_RANGE named; 0: there was none."""
    ended: bool = True
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was to become of a job."""

    states: frozenset[State] = frozenset({State.SUCCEEDED})
    steps: int
    interval: int
    """Steps from checkpoint to checkpoint."""
    damaged: int = 0
    """Checkpoints that were damaged on purpose: so many more intervals may be repeated."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that is known of a job that has come to rest."""

    wanted: Wanted
    job: Job | None
    """As the ledger has it; None: the ledger has forgotten it."""
    events: Sequence[JobEvent] = ()
    """As the ledger has them."""
    watched: Sequence[Watched] = ()
    checkpoints: Sequence[Checkpoint] = ()
    found: Mapping[str, chain.Link | str | None] = field(default_factory=dict)
    """By the id of a listed checkpoint: the state in it (None: another trainer's), or what is wrong with its bytes."""
    metrics: Mapping[str, MetricSeries] = field(default_factory=dict)
    """As readers are told."""

    @property
    def changes(self) -> list[tuple[JobEvent, StateChange]]:
        """The moves."""
        return [(event, event.payload) for event in self.events if isinstance(event.payload, StateChange)]

    @property
    def batches(self) -> list[tuple[int, MetricBatch]]:
        """The points, with their attempts."""
        return [(event.attempt, event.payload) for event in self.events if isinstance(event.payload, MetricBatch)]

    def reported(self, attempt: int) -> list[int]:
        """The steps whose loss an attempt reported, in the order in which it did."""
        return [
            step
            for number, batch in self.batches
            for series in batch.series
            for step in series.steps
            if number == attempt and series.name == "train/loss"
        ]


Check = Callable[[Evidence], Iterator[str]]


def survives(evidence: Evidence) -> Iterator[str]:
    """a. An accepted job is still there, and it ends as it was to end."""
    if evidence.job is None:
        yield "the ledger has forgotten the job"
    elif evidence.job.state not in evidence.wanted.states:
        wanted = " or ".join(sorted(state.name for state in evidence.wanted.states))
        error = evidence.job.error.message if evidence.job.error else evidence.job.state_reason
        yield f"it is {evidence.job.state.name} and not {wanted}: {error}"
    elif evidence.job.state is State.SUCCEEDED:
        steps = list(evidence.metrics["train/loss"].steps) if "train/loss" in evidence.metrics else []
        if steps != list(range(1, evidence.wanted.steps + 1)):
            yield f"of its {evidence.wanted.steps} steps readers see {_ranges(steps)}"


def takes_effect_once(evidence: Evidence) -> Iterator[str]:
    """b. No effect is doubled, and none is of an attempt that was fenced out."""
    present, running = 0, False
    begun: set[int] = set()
    for event in evidence.events:
        what = type(event.payload).__name__
        if event.attempt < present:
            yield f"event {event.sequence}, {what}, is of attempt {event.attempt}, after attempt {present} began"
        elif isinstance(event.payload, StateChange):
            state, present = event.payload.to_state, event.attempt
            running = state in (State.RUNNING, State.CANCELLING, State.PAUSING)
            if state is State.RUNNING:
                if event.attempt in begun:
                    yield f"attempt {event.attempt} began twice"
                begun.add(event.attempt)
        elif isinstance(event.payload, (MetricBatch, Checkpoint, Progress)) and not running:
            yield f"event {event.sequence}, {what}, was written while no attempt ran"
    for number in sorted(begun):
        steps = evidence.reported(number)
        if steps != sorted(set(steps)):
            yield f"attempt {number} reported a step twice or out of order: {_ranges(steps)}"
    ids = [event.payload.id for event in evidence.events if isinstance(event.payload, Checkpoint)]
    if len(ids) != len(set(ids)):
        yield "a checkpoint was registered twice"


def stays_ended(evidence: Evidence) -> Iterator[str]:
    """c. Moves are legal, and nothing comes after a final state."""
    state: State | None = None
    for event, change in evidence.changes:
        if change.from_state is not state:
            yield f"event {event.sequence} moves from {change.from_state}, but the job was {state}"
        if state is not None and change.to_state not in MOVES[state]:
            yield f"event {event.sequence} moves from {state.name} to {change.to_state.name}, which is illegal"
        state = change.to_state
    final = [event.sequence for event, change in evidence.changes if change.to_state.terminal]
    if len(final) > 1:
        yield f"it ended {len(final)} times"
    if final and evidence.events[-1].sequence != final[0]:
        yield f"it ended with event {final[0]}, but there is an event {evidence.events[-1].sequence}"
    if evidence.job is not None and evidence.job.state is not state:
        yield f"the ledger says {evidence.job.state.name}, the last event {state.name if state else 'nothing'}"


def lists_whole_checkpoints(evidence: Evidence) -> Iterator[str]:
    """d. What is listed is complete, and its digests verify."""
    for checkpoint in evidence.checkpoints:
        found = evidence.found.get(checkpoint.id, "its bytes were not looked at")
        if isinstance(found, str):
            yield f"{checkpoint.id} of step {checkpoint.step} is listed, but {found}"
    best = [checkpoint for checkpoint in evidence.checkpoints if checkpoint.best]
    if len(best) > 1:
        yield f"{len(best)} checkpoints are the best one"


def repeats_little(evidence: Evidence) -> Iterator[str]:
    """e. An attempt repeats at most one interval; readers see each (metric, step) once, the later attempt's."""
    attempts = evidence.job.attempts if evidence.job else ()
    allowed = evidence.wanted.interval * (1 + evidence.wanted.damaged)
    reached = 0
    for attempt in attempts:
        steps = evidence.reported(attempt.number)
        if steps and reached - steps[0] + 1 > allowed:
            yield f"attempt {attempt.number} began again with step {steps[0]}, after step {reached} had been reported"
        if steps and steps[0] != attempt.resumed_from_step + 1:
            yield f"attempt {attempt.number} resumed from {attempt.resumed_from_step}; its first step was {steps[0]}"
        reached = max([reached, *steps])
    merged = merge_metrics(evidence.batches)
    for name, series in evidence.metrics.items():
        if list(series.steps) != sorted(set(series.steps)):
            yield f"readers see a step of {name} twice: {_ranges(series.steps)}"
        if dict(zip(series.steps, series.values, strict=True)) != merged.get(name):
            yield f"readers see other points of {name} than the latest attempts reported"


def resumes_exactly(evidence: Evidence) -> Iterator[str]:
    """f. Every state is that of the run that was never interrupted."""
    for checkpoint in evidence.checkpoints:
        found = evidence.found.get(checkpoint.id)
        if isinstance(found, chain.Link) and found != chain.after(checkpoint.step):
            yield f"{checkpoint.id} of step {checkpoint.step} does not hold what an uninterrupted run has then"
    for attempt, batch in evidence.batches:
        for series in batch.series:
            wrong = [
                step
                for step, value in zip(series.steps, series.values, strict=True)
                if series.name == "train/loss" and value != chain.after(step).loss
            ]
            if wrong:
                yield f"attempt {attempt} reported a loss that is not an uninterrupted run's at {_ranges(wrong)}"
    if evidence.job is not None and evidence.job.state is State.SUCCEEDED:
        last = evidence.checkpoints[-1] if evidence.checkpoints else None
        if last is None or last.step != evidence.wanted.steps:
            yield f"it has no checkpoint of its last step, {evidence.wanted.steps}"


def tells_everything(evidence: Evidence) -> Iterator[str]:
    """g. A watcher gets every event in order, or an OUT_OF_RANGE that names the oldest."""
    for number, watched in enumerate(evidence.watched):
        who = f"watcher {number}"
        if not watched.ended:
            yield f"the stream of {who} never ended"
        if watched.error:
            yield f"the stream of {who} broke: {watched.error}"
        snapshots = [event for event in watched.events if isinstance(event.payload, Job)]
        if len(snapshots) != 1 or watched.events[0] is not snapshots[0]:
            yield f"{who} was not told the job as it stood, once and first"
        events = [event for event in watched.events if not isinstance(event.payload, Job)]
        if [event.sequence for event in events] != list(range(1, len(events) + 1)):
            yield f"{who} saw {_ranges([event.sequence for event in events])}"
        if any(seen != written for seen, written in zip(events, evidence.events, strict=False)):
            yield f"{who} was told something else than the ledger has"
        if len(events) < len(evidence.events) and watched.oldest_kept <= len(events) + 1:
            yield f"{who} saw {len(events)} events of {len(evidence.events)}"
    sequences = [event.sequence for event in evidence.events]
    if sequences != list(range(1, len(sequences) + 1)):
        yield f"the ledger's own events are {_ranges(sequences)}"


#: By the letter of the promise.
PROMISES: Mapping[str, Check] = {
    "a": survives,
    "b": takes_effect_once,
    "c": stays_ended,
    "d": lists_whole_checkpoints,
    "e": repeats_little,
    "f": resumes_exactly,
    "g": tells_everything,
}


def violations(evidence: Evidence) -> list[str]:
    """Everything that was promised and is not so, each with its letter."""
    return [f"{letter}: {sentence}" for letter, check in PROMISES.items() for sentence in check(evidence)]


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in few words: "1-5, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts) or "nothing"
