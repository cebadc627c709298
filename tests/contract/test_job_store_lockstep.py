"""Random histories, played on both ledgers at once: they answer alike, and what must always hold always holds."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from podium.jobs import wire
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import PodiumError
from podium.jobs.events import JobEvent, LogBatch, LogLine, MetricBatch, StateChange
from podium.jobs.job import Cause, Checkpoint, Job, JobError, Member, Node, NodeState, Progress, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Priority, Resources, Weights
from podium.jobs.states import HOLDING_A_SLOT, MOVES, State
from podium.jobs.store import Archive, Assignment, Drain, JobStore, Leases, MemoryStore, NewJob
from podium.jobs.store.redis import RedisStore

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
NODES = [
    Node(id=name, pool="default", state=NodeState.READY, slots=tuple(Slot(index=index) for index in range(3)))
    for name in ("n1", "n2")
]
PAYLOADS = st.lists(
    st.one_of(
        st.builds(MetricBatch.at, st.integers(0, 9), st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 1))),
        st.builds(Progress, phase=st.just("training"), step=st.integers(0, 99)),
        st.builds(LogBatch, lines=st.lists(st.just(LogLine(text="line")), min_size=1, max_size=5).map(tuple)),
    ),
    max_size=4,
)
#: Machines are never lost: by the clock that is turned they would be, and by Redis' own they would not.
LEASES = Leases(node=10**8)
FIRST = st.runner().flatmap(lambda machine: st.sampled_from(machine.ids + machine.gone))
HELD = st.runner().flatmap(lambda machine: st.sampled_from(machine.assignments))
_prefixes = itertools.count()


def passed_on(store: JobStore, job_id: str) -> Job:
    """The job as who only passes it on gets it, which is as everybody else does."""
    state, data = store.serialized(job_id)
    job = wire.from_bytes(Job, data)
    assert state is job.state
    assert replace(store.get(job_id), queue=None) == job
    return job


class Lockstep(RuleBasedStateMachine):
    """The same calls on two ledgers that share a clock and the ids that they give out."""

    def __init__(self, client: redis.Redis, archive: Archive) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.stores: list[Any] = [
            MemoryStore(
                clock=self.time, leases=LEASES, new_id=self.ids_from(), events_kept=12, log_kept=600, archive=archive
            ),
            RedisStore(
                client,
                clock=self.time,
                leases=LEASES,
                new_id=self.ids_from(),
                events_kept=12,
                log_kept=600,
                prefix=f"lockstep{next(_prefixes)}:",
                archive=archive,
            ),
        ]
        self.ids: list[str] = []
        self.gone: list[str] = []
        self.assignments: list[Assignment] = []
        self.seen: dict[str, int] = {}
        self.state: dict[str, State] = {}
        for store, node in itertools.product(self.stores, NODES):
            store.heartbeat(node)

    def time(self) -> datetime:
        return self.now

    @staticmethod
    def ids_from() -> Callable[[], str]:
        return map("job-{:04d}".format, itertools.count()).__next__

    def both(self, call: Callable[[JobStore], object]) -> Any:
        """What both answer, or the reason why both refuse."""
        first, second = (self.answer(store, call) for store in self.stores)
        assert first == second
        return first

    @staticmethod
    def answer(store: JobStore, call: Callable[[JobStore], object]) -> object:
        try:
            return call(store)
        except PodiumError as error:
            return type(error), error.reason, error.metadata

    @rule(
        priority=st.sampled_from(Priority),
        request=st.sampled_from(["", "", "r1", "r2"]),
        pool=st.sampled_from(["default", "default", "big"]),
        start=st.sampled_from([None, None, 0, 1]),
    )
    def create(self, priority: Priority, request: str, pool: str, start: int | None) -> None:
        spec = replace(SPEC, priority=priority, resources=Resources(pool=pool))
        if start is not None:
            spec = replace(spec, weights=Weights(checkpoint=f"ckpt-job-0000-{start}"))
        answer = self.both(
            lambda store: store.create(NewJob(project="default", spec=spec, classes=("a",), request_id=request))
        )
        if answer[-1] is True:
            self.ids.append(answer[0].id)

    @precondition(lambda self: self.ids)
    @rule(
        job_id=FIRST,
        node=st.sampled_from(["n1", "n2"]),
        slots=st.sampled_from([(0,), (1,), (0, 1), (1, 2), (2, 1, 0)]),
        elsewhere=st.sampled_from([(), (), (Member(node="n3", slots=(0,)),), (Member(node="n3", slots=(1, 0)),)]),
    )
    def dispatch(self, job_id: str, node: str, slots: tuple[int, ...], elsewhere: tuple[Member, ...]) -> None:
        answer = self.both(lambda store: store.dispatch(job_id, node, *slots, elsewhere=elsewhere))
        if isinstance(answer, Assignment):
            self.assignments.append(answer)

    @precondition(lambda self: any(self.stores[0].pending("default")))
    @rule()
    def dispatch_the_next_and_begin(self) -> None:
        job_id = self.stores[0].pending("default")[0]
        taken = places_of(job for job, _, _ in self.stores[0].holding())
        node, slot = next(
            (node, slot) for node, slot in itertools.product(["n1", "n2", "n3"], range(99)) if (node, slot) not in taken
        )
        assignment = self.both(lambda store: store.dispatch(job_id, node, slot))
        self.assignments.append(assignment)
        assert self.both(lambda store: store.begin(assignment)).state is State.RUNNING

    @precondition(lambda self: self.assignments)
    @rule(assignment=HELD, step=st.integers(0, 9), rendezvous=st.sampled_from(["", "here:1"]))
    def begin(self, assignment: Assignment, step: int, rendezvous: str) -> None:
        self.both(lambda store: store.begin(assignment, resumed_from_step=step, rendezvous=rendezvous))
        self.both(lambda store: store.rendezvous(assignment))

    @precondition(lambda self: self.assignments)
    @rule(assignment=HELD)
    def renew(self, assignment: Assignment) -> None:
        self.both(lambda store: store.renew(assignment))

    @precondition(lambda self: self.assignments)
    @rule(assignment=HELD, batch=st.integers(1, 5), payloads=PAYLOADS)
    def append(self, assignment: Assignment, batch: int, payloads: list[Any]) -> None:
        self.both(lambda store: store.append(assignment, batch, payloads))

    @precondition(lambda self: self.assignments)
    @rule(assignment=HELD, name=st.integers(0, 3), step=st.integers(0, 9), best=st.booleans())
    def commit_checkpoint(self, assignment: Assignment, name: int, step: int, best: bool) -> None:
        checkpoint = Checkpoint(
            id=f"ckpt-{assignment.job_id}-{name}",
            job_id=assignment.job_id,
            attempt=assignment.attempt,
            step=step,
            best=best,
        )
        self.both(lambda store: store.commit_checkpoint(assignment, checkpoint))
        self.both(lambda store: store.checkpoint(checkpoint.id))

    @precondition(lambda self: self.assignments)
    @rule(assignment=HELD, name=st.integers(0, 3))
    def forget_checkpoint(self, assignment: Assignment, name: int) -> None:
        checkpoint_id = f"ckpt-{assignment.job_id}-{name}"
        self.both(lambda store: store.forget_checkpoint(assignment, checkpoint_id))
        self.both(lambda store: store.checkpoint(checkpoint_id))

    @precondition(lambda self: self.assignments)
    @rule(
        assignment=HELD,
        cause=st.sampled_from(Cause),
        lines=st.sampled_from([(), (LogLine(text="last words"),)]),
        faulty=st.sampled_from(["", "", "n1"]),
    )
    def recover(self, assignment: Assignment, cause: Cause, lines: tuple[LogLine, ...], faulty: str) -> None:
        self.both(lambda store: store.recover(assignment, "lost", cause=cause, lines=lines, faulty=faulty))

    @precondition(lambda self: self.assignments)
    @rule(assignment=HELD)
    def preempt(self, assignment: Assignment) -> None:
        self.both(lambda store: store.preempt(assignment, "why"))

    @precondition(lambda self: self.assignments)
    @rule(assignment=HELD, state=st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED]))
    def finish(self, assignment: Assignment, state: State) -> None:
        error = JobError(cause=Cause.INTERNAL, message="m") if state is State.FAILED else None
        self.both(lambda store: store.finish(assignment, state, reason="end", error=error))

    @precondition(lambda self: self.ids)
    @rule(job_id=FIRST, force=st.sampled_from([False, False, True]))
    def cancel(self, job_id: str, force: bool) -> None:
        self.both(lambda store: store.cancel(job_id, "why", force=force))

    @precondition(lambda self: self.ids)
    @rule(job_id=FIRST)
    def pause(self, job_id: str) -> None:
        self.both(lambda store: store.pause(job_id, "why"))

    @precondition(lambda self: self.ids)
    @rule(job_id=FIRST)
    def resume(self, job_id: str) -> None:
        self.both(lambda store: store.resume(job_id))

    @precondition(lambda self: self.ids)
    @rule(
        job_id=FIRST,
        priority=st.sampled_from([None, *Priority]),
        labels=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["", "x", "y"])),
    )
    def update(self, job_id: str, priority: Priority | None, labels: dict[str, str]) -> None:
        self.both(lambda store: store.update(job_id, priority=priority, labels=labels))

    @rule(node=st.sampled_from(["n1", "n2", "n3"]), drain=st.sampled_from(Drain))
    def drain(self, node: str, drain: Drain) -> None:
        self.both(lambda store: store.drain(node, drain))

    @rule(node=st.sampled_from(NODES), leaves=st.sampled_from([False, False, True]))
    def heartbeat(self, node: Node, leaves: bool) -> None:
        if leaves:
            self.both(lambda store: store.remove_node(node.id))
        self.both(lambda store: store.heartbeat(node))

    @rule(limit=st.integers(1, 3))
    def archive(self, limit: int) -> None:
        for job_id in self.both(lambda store: store.ended(before=self.now, limit=limit)):
            self.both(lambda store: store.archive(job_id))  # noqa: B023  # called at once

    @precondition(lambda self: self.ids)
    @rule(job_id=FIRST)
    def delete(self, job_id: str) -> None:
        if self.both(lambda store: store.delete(job_id)) is None:
            self.ids.remove(job_id)
            self.gone.append(job_id)

    @precondition(lambda self: self.ids)
    @rule(job_id=FIRST, name=st.integers(0, 3))
    def delete_checkpoint(self, job_id: str, name: int) -> None:
        self.both(lambda store: store.delete_checkpoint(f"ckpt-{job_id}-{name}"))

    @rule()
    def conclude(self) -> None:
        for deletion in self.both(lambda store: store.deletions())[:1]:
            self.both(lambda store: store.conclude(deletion))  # noqa: B023  # called at once

    @precondition(lambda self: self.ids)
    @rule(job_id=FIRST, after=st.integers(-1, 30), limit=st.integers(1, 5))
    def read_events(self, job_id: str, after: int, limit: int) -> None:
        self.both(lambda store: store.events(job_id, after=after, limit=limit))

    @precondition(lambda self: self.ids)
    @rule(job_id=FIRST, offset=st.sampled_from([None, 0, 1, 2, 5, 99]), limit=st.integers(1, 3))
    def read_log(self, job_id: str, offset: int | None, limit: int) -> None:
        self.both(lambda store: store.log(job_id, offset=offset, limit=limit))

    @rule(limit=st.integers(1, 3), states=st.frozensets(st.sampled_from(State), max_size=3), oldest=st.booleans())
    def read_pages(self, limit: int, states: frozenset[State], oldest: bool) -> None:
        listed, cursor = [], ""
        while True:
            jobs, cursor = self.both(
                methodcaller("list", project="default", states=states, oldest_first=oldest, cursor=cursor, limit=limit)
            )
            listed += [job.id for job in jobs]
            if not cursor:
                break
        wanted = [job_id for job_id in self.ids if not states or self.stores[0].get(job_id).state in states]
        assert (wanted if oldest else wanted[::-1]) == listed

    @rule(seconds=st.sampled_from([0.5, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def both_tell_the_same(self) -> None:
        for pool in ("default", "big"):
            pending = self.both(methodcaller("pending", pool))
            assert pending == [job_id for job_id, _ in self.both(methodcaller("line", pool))]
            ranks = [self.stores[0].get(job_id).queue.position for job_id in pending]
            assert list(range(1, len(pending) + 1)) == ranks
        for job_id in (*self.ids[-3:], *self.gone[-1:]):
            self.both(methodcaller("get", job_id))
            self.both(lambda store: passed_on(store, job_id))  # noqa: B023  # called at once
            self.both(methodcaller("checkpoints", job_id))
            self.both(lambda store: list(store.metrics(job_id)))  # noqa: B023  # called at once
        self.both(lambda store: store.known(self.ids + self.gone))
        self.both(lambda store: store.deletions())
        census = self.both(lambda store: store.census())
        ended = Counter(job.state for job in self.stores[0].known(self.ids) if job.terminal)
        assert ended + Counter(self.state[job_id] for job_id in self.gone) == census.jobs_ended

    @invariant()
    def a_slot_is_held_by_one_job_at_most(self) -> None:
        holding = self.both(lambda store: [(job, assignment) for job, assignment, _ in store.holding()])
        places = places_of(job for job, _ in holding)
        assert len(places) == len(set(places))
        assert all(job.state in HOLDING_A_SLOT for job, _ in holding)

    @invariant()
    def every_move_is_legal_has_one_event_and_leaves_no_gap(self) -> None:
        for job_id in self.ids:
            job = self.stores[0].get(job_id)
            page = self.stores[0].events(job_id, after=self.seen.get(job_id, 0))
            for event in page.events:
                assert event.sequence == self.seen.get(job_id, 0) + 1
                self.seen[job_id] = event.sequence
                payload = wire.from_bytes(JobEvent, event.data).payload
                if isinstance(payload, StateChange):
                    before = self.state.get(job_id)
                    assert payload.from_state is before
                    assert before is None or payload.to_state in MOVES[before]
                    self.state[job_id] = payload.to_state
            assert job.sequence == self.seen[job_id]
            assert job.state is self.state[job_id]

    @invariant()
    def what_a_job_that_has_not_ended_starts_from_is_there(self) -> None:
        for job in self.stores[0].known(self.ids):
            if job.spec.weights is not None and not job.terminal:
                owner = self.stores[0].checkpoint(job.spec.weights.checkpoint).job_id
                # What its own attempt has taken off the list is not protected, nor can it be.
                assert owner not in self.gone

    @invariant()
    def a_machine_shows_exactly_the_slots_that_are_held(self) -> None:
        shown = self.both(
            lambda store: {(node.id, slot.index): slot.job_id for node in store.nodes() for slot in node.slots}
        )
        held = {place: job.id for job, _, _ in self.stores[0].holding() for place in places_of([job])}
        for place, job_id in shown.items():
            assert held.get(place, "") == job_id


def places_of(jobs: Iterable[Job]) -> list[tuple[str, int]]:
    """The slots that these jobs hold, each with its machine."""
    return [(member.node, slot) for job in jobs for member in job.attempts[-1].members for slot in member.slots]


def test_both_ledgers_answer_every_history_alike(redis_client: redis.Redis, tmp_path: Path) -> None:
    wanted = int(os.environ.get("PODIUM_MODEL_EXAMPLES", "0"))
    run_state_machine_as_test(
        partial(Lockstep, redis_client, Archive(ArtifactStore(str(tmp_path)))),  # type: ignore[arg-type]  # a factory will do
        settings=settings(
            max_examples=wanted or 40,
            stateful_step_count=40,
            deadline=None,
            derandomize=not wanted,
            suppress_health_check=list(HealthCheck),
        ),
    )
