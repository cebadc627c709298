"""Calls in the middle of one another: who runs the next Redis command is drawn, and who dies before or after it.

Every call of the ledger runs in a thread that stops before each of its commands. A step lets one of them run one
command: as it should, with its answer lost and the command sent again as redis-py does, or with the caller killed just
before or just after it. What must hold, holds after every step. PODIUM_MODEL_EXAMPLES runs as many random histories as
it says, in place of the few that are the same each time.

Long, because a model is one machine: its rules share its state.
"""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import redis
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from podium.jobs import wire
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import NotFoundError, PodiumError
from podium.jobs.events import JobEvent, MetricBatch, StateChange
from podium.jobs.job import Cause, Checkpoint, Job, Member
from podium.jobs.spec import Priority, Weights
from podium.jobs.states import HOLDING_A_SLOT, MOVES, State
from podium.jobs.store import Archive, Assignment, NewJob
from podium.jobs.store._record import Record
from podium.jobs.store._redis_keys import FIELDS, Keys, from_fields
from podium.jobs.store._redis_link import Command, Link, Move, Word
from podium.jobs.store.redis import RedisStore
from tests.contract.plays import SPEC

_IN_FLIGHT = 5
_NODES = ("n1", "n2")
_prefixes = itertools.count()


class Fate(Enum):
    """What becomes of a command and of who sent it."""

    DONE = "done"
    TWICE = "its answer is lost, and it is sent again"
    KILLED_BEFORE = "its sender dies before it"
    KILLED_AFTER = "its sender dies after it"


class Killed(BaseException):
    """A process is no more. Nothing catches it."""


class Call(threading.Thread):
    """One call of a ledger, which stops before each of its commands until it is told to go on."""

    def __init__(self, name: str, client: redis.Redis, make: Callable[[Link], RedisStore], call: Callable[[Any], Any]):
        super().__init__(name=name, daemon=True)
        self._store = make(Stepped(client, self))
        self._call = call
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._fate = Fate.DONE
        self.over = self.done = False
        self.answer: object = None
        self.start()
        self._stopped.acquire()

    def run(self) -> None:
        try:
            self.answer = self._call(self._store)
        except Killed:
            self.answer = None
        except PodiumError as refused:
            # Who creates a job reads it once more; by then it may have ended and been deleted.
            gone = self.name == "create" and isinstance(refused, NotFoundError)
            told = AssertionError(f"{self.name} was done, and was told {refused!r}")
            self.answer = told if self.done and not gone else refused
        except BaseException as wrong:
            self.answer = AssertionError(f"{self.name} raised {wrong!r}")
        self.over = True
        self._stopped.release()

    def step(self, fate: Fate) -> None:
        """Runs one command."""
        self._fate = fate
        self._go.release()
        self._stopped.acquire()

    def turn(self, command: Callable[[], Any]) -> Any:
        """A command, when its turn has come; in the call's own thread."""
        self._stopped.release()
        self._go.acquire()
        if self._fate is Fate.KILLED_BEFORE:
            raise Killed
        answer = command()
        if self._fate is Fate.TWICE:
            answer = command()
        if self._fate is Fate.KILLED_AFTER:
            raise Killed
        return answer


class Stepped(Link):
    """A link that waits for its turn before each command."""

    def __init__(self, client: redis.Redis, call: Call) -> None:
        super().__init__(client)
        self._call = call

    def run(self, *commands: Command) -> list[Any]:
        answers: list[Any] = self._call.turn(lambda: super(Stepped, self).run(*commands))
        return answers

    def commit(self, key: str, move: Move, guards: Sequence[Command], commands: Sequence[Command]) -> str:
        def once() -> str:
            answer = super(Stepped, self).commit(key, move, guards, commands)
            self._call.done |= answer.startswith("done")
            return answer

        answer: str = self._call.turn(once)
        return answer

    def enter(self, keys: Sequence[str], *words: Word) -> int | None:
        def once() -> int | None:
            place = super(Stepped, self).enter(keys, *words)
            self._call.done |= place is not None
            return place

        place: int | None = self._call.turn(once)
        return place

    def guarded(self, guards: Sequence[Command], commands: Sequence[Command]) -> bool:
        def once() -> bool:
            answer = super(Stepped, self).guarded(guards, commands)
            self._call.done |= answer
            return answer

        answer: bool = self._call.turn(once)
        return answer


@dataclass(kw_only=True)
class Seen:
    """What is known of a job so far."""

    record: Record
    sequence: int = 0
    state: State | None = None
    batches: set[tuple[int, int]]
    end: Job | None = None


ENDED = st.runner().flatmap(lambda machine: st.sampled_from(machine.ended()))
JOBS = st.runner().flatmap(lambda machine: st.sampled_from(machine.ids))
#: Mostly those that may still hold their jobs.
HELD = st.runner().flatmap(lambda machine: st.sampled_from(machine.assignments + 3 * machine.assignments[-2:]))
PLACES = st.sampled_from([((0,), ()), ((1,), ()), ((1, 0), ()), ((0,), (Member(node="n2", slots=(0,)),))])


class Interleaved(RuleBasedStateMachine):
    """Several calls at once on one Redis."""

    def __init__(self, client: redis.Redis, artifacts: ArtifactStore) -> None:
        super().__init__()
        self.client = client
        self.prefix = f"model{next(_prefixes)}:"
        self.keys = Keys(prefix=self.prefix)
        self.archive = Archive(artifacts)
        self.names = map(f"{self.prefix[:-1]}-job-{{}}".format, itertools.count())
        self.link = Link(client)
        self.store = self.ledger(self.link)
        self.calls: list[Call] = []
        self.ids: list[str] = []
        self.assignments: list[Assignment] = []
        self.seen: dict[str, Seen] = {}
        self.gone: set[str] = set()
        """Jobs and checkpoints that were deleted."""

    def ledger(self, link: Link) -> RedisStore:
        store = RedisStore(self.client, prefix=self.prefix, new_id=self.names.__next__, archive=self.archive)
        store._link = link
        return store

    @initialize()
    def one_runs_one_starts_and_one_waits(self) -> None:
        ids = [self.store.create(NewJob(project="default", spec=SPEC, classes=("a",)))[0].id for _ in range(3)]
        self.store.begin(self.store.dispatch(ids[0], "n2", 1))
        self.store.dispatch(ids[1], "n2", 0)

    # Who wants what

    def starts(self, name: str, call: Callable[[RedisStore], Any]) -> None:
        self.calls.append(Call(name, self.client, self.ledger, call))

    def room(self) -> bool:
        return len(self.calls) < _IN_FLIGHT

    @precondition(lambda self: self.room() and len(self.ids) < 5)
    @rule(request=st.sampled_from(["", "r1"]), priority=st.sampled_from(Priority))
    def a_user_creates(self, request: str, priority: Priority) -> None:
        new = NewJob(project="default", spec=SPEC, classes=("a",), request_id=request)
        self.starts("create", lambda store: store.create(new))

    @precondition(lambda self: self.room() and len(self.ids) < 6 and self.checkpoints())
    @rule(data=st.data())
    def a_user_creates_one_that_starts_from_a_checkpoint(self, data: st.DataObject) -> None:
        weights = Weights(checkpoint=data.draw(st.sampled_from(self.checkpoints())))
        new = NewJob(project="default", spec=replace(SPEC, weights=weights), classes=("a",))
        self.starts("create", lambda store: store.create(new))

    def checkpoints(self) -> list[str]:
        return sorted({f"ckpt-{mine.job_id}-{mine.fence}" for mine in self.assignments})

    @precondition(lambda self: self.room() and self.ended())
    @rule(data=st.data(), job_id=ENDED)
    def a_user_deletes(self, data: st.DataObject, job_id: str) -> None:
        own = [name for name in self.checkpoints() if job_id in name]
        target = data.draw(st.sampled_from([job_id, *own]))
        if target == job_id:
            self.starts(f"delete {job_id}", lambda store: store.delete(job_id))
        else:
            self.starts(f"delete {target}", lambda store: store.delete_checkpoint(target))

    @precondition(lambda self: self.room() and self.store.deletions())
    @rule()
    def a_leader_concludes(self) -> None:
        # Long after: who deletes and has not heard the answer finds the deletion on the list.
        if any(call.name.startswith("delete") for call in self.calls):
            return
        deletion = self.store.deletions()[0]
        self.starts(f"conclude {deletion}", lambda store: store.conclude(deletion))

    @precondition(lambda self: self.room() and self.ids)
    @rule(job_id=JOBS, what=st.sampled_from(["pause", "cancel", "force", "resume", "update"]))
    def a_user_asks(self, job_id: str, what: str) -> None:
        asks: dict[str, Callable[[RedisStore], object]] = {
            "pause": lambda store: store.pause(job_id, "why"),
            "cancel": lambda store: store.cancel(job_id, "why"),
            "force": lambda store: store.cancel(job_id, "why", force=True),
            "resume": lambda store: store.resume(job_id),
            "update": lambda store: store.update(job_id, priority=Priority.HIGH, labels={"a": "b"}),
        }
        self.starts(f"{what} {job_id}", asks[what])

    def ended(self) -> list[str]:
        return [job_id for job_id, seen in self.seen.items() if seen.end]

    @precondition(lambda self: self.room() and self.ended())
    @rule(job_id=ENDED)
    def a_leader_archives(self, job_id: str) -> None:
        self.starts(f"archive {job_id}", lambda store: store.archive(job_id))

    @precondition(lambda self: self.room() and self.ids)
    @rule(job_id=JOBS, node=st.sampled_from(["n1", "n1", "n2"]), places=PLACES)
    def a_leader_dispatches(self, job_id: str, node: str, places: tuple[tuple[int, ...], tuple[Member, ...]]) -> None:
        slots, elsewhere = places
        elsewhere = tuple(member for member in elsewhere if member.node != node)
        self.starts(f"dispatch {job_id}", lambda store: store.dispatch(job_id, node, *slots, elsewhere=elsewhere))

    @precondition(lambda self: self.room() and self.assignments)
    @rule(mine=HELD, what=st.sampled_from(["begin", "begin", "renew", "checkpoint", "forget", "preempt"]))
    def an_attempt_or_the_leader_writes(self, mine: Assignment, what: str) -> None:
        checkpoint = Checkpoint(id=f"ckpt-{mine.job_id}-{mine.fence}", job_id=mine.job_id, attempt=mine.attempt, step=9)
        writes: dict[str, Callable[[RedisStore], object]] = {
            "begin": lambda store: store.begin(mine, rendezvous="here"),
            "renew": lambda store: store.renew(mine),
            "checkpoint": lambda store: store.commit_checkpoint(mine, checkpoint),
            "forget": lambda store: store.forget_checkpoint(mine, checkpoint.id),
            "preempt": lambda store: store.preempt(mine, "why"),
        }
        self.starts(f"{what} {mine}", writes[what])

    @precondition(lambda self: self.room() and self.assignments)
    @rule(mine=HELD, batch=st.integers(1, 3))
    def an_attempt_appends(self, mine: Assignment, batch: int) -> None:
        # The points say who wrote them, and which batch it was.
        points = MetricBatch.at(batch, {"fence": float(mine.fence)})
        self.starts(f"append {batch} {mine}", lambda store: store.append(mine, batch, [points]))

    @precondition(lambda self: self.room() and self.assignments)
    @rule(mine=HELD, end=st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED, *Cause]))
    def an_attempt_ends(self, mine: Assignment, end: State | Cause) -> None:
        if isinstance(end, State):
            self.starts(f"finish {mine}", lambda store: store.finish(mine, end, reason="over"))
        else:
            self.starts(f"recover {mine}", lambda store: store.recover(mine, "lost", cause=end))

    # One command

    @precondition(lambda self: self.calls)
    @rule(
        data=st.data(),
        fate=st.sampled_from([Fate.DONE] * 7 + [Fate.TWICE] * 2 + [Fate.KILLED_BEFORE, Fate.KILLED_AFTER]),
    )
    def step(self, data: st.DataObject, fate: Fate) -> None:
        call = data.draw(st.sampled_from(self.calls), label="whose turn")
        note(f"{call.name}: {fate.value}")
        call.step(fate)
        if call.over:
            self.calls.remove(call)
            if isinstance(call.answer, AssertionError):
                raise call.answer

    # The way to the interesting places is long: most of it in one go.

    @precondition(lambda self: self.calls)
    @rule()
    def all_come_to_their_end(self) -> None:
        while self.calls:
            for call in tuple(self.calls):
                call.step(Fate.DONE)
                if call.over:
                    self.calls.remove(call)
                    if isinstance(call.answer, AssertionError):
                        raise call.answer
                self.what_must_hold_holds()

    def teardown(self) -> None:
        for call in self.calls:
            while not call.over:
                call.step(Fate.KILLED_BEFORE)

    # What must hold

    @invariant()
    def what_must_hold_holds(self) -> None:
        records = self.records()
        for job_id, record in records.items():
            seen = self.seen.setdefault(job_id, Seen(record=record, batches=set()))
            if record.stamp != seen.record.stamp or not seen.sequence:
                self.its_history_goes_on(job_id, record, seen)
            seen.record = record
        self.every_place_is_where_the_states_say(records)
        self.what_was_deleted_stays_so_and_nobody_needs_it(records)
        for job_id in records:
            if job_id not in self.ids:
                self.ids.append(job_id)
        for record in records.values():
            if record.places and record.assignment not in self.assignments:
                self.assignments.append(record.assignment)

    def records(self) -> dict[str, Record]:
        """All jobs, as Redis has them."""
        (rows,) = self.link.run(("ZRANGE", self.keys.jobs("default"), 0, -1))
        names = [row.decode() for row in rows]
        answers = self.link.run(*(("HMGET", self.keys.job(name), *FIELDS) for name in names)) if names else []
        found = {name: record for name, fields in zip(names, answers, strict=True) if (record := from_fields(fields))}
        assert set(names) == set(found), "a job without a record"
        return found

    def its_history_goes_on(self, job_id: str, record: Record, seen: Seen) -> None:
        assert seen.end is None, f"{job_id} has ended, and was written"
        assert record.fence >= seen.record.fence
        for stored in self.store.events(job_id, after=seen.sequence).events:
            assert stored.sequence == seen.sequence + 1, "a gap"
            seen.sequence = stored.sequence
            event = wire.from_bytes(JobEvent, stored.data)
            if isinstance(event.payload, StateChange):
                assert event.payload.from_state is seen.state
                assert seen.state is None or event.payload.to_state in MOVES[seen.state]
                seen.state = event.payload.to_state
            if isinstance(event.payload, MetricBatch):
                (series,) = event.payload.series
                write = int(series.values[0]), series.steps[0]
                assert write[0] == seen.record.fence, "written by somebody who no longer held the job"
                assert seen.record.places
                assert write not in seen.batches, "written twice"
                seen.batches.add(write)
        assert (record.job.sequence, record.job.state) == (seen.sequence, seen.state)
        seen.end = record.job if record.job.terminal else None

    def every_place_is_where_the_states_say(self, records: dict[str, Record]) -> None:
        pending, holding, ended, *slots = self.link.run(
            ("ZRANGE", self.keys.pending("default"), 0, -1),
            ("ZRANGE", self.keys.holding, 0, -1),
            ("ZRANGE", self.keys.ended, 0, -1),
            *(("HGETALL", self.keys.slots(node)) for node in _NODES),
        )
        held = {
            (node, int(slot)): job_id.decode()
            for node, taken in zip(_NODES, slots, strict=True)
            for slot, job_id in taken.items()
        }
        places = [(place, job_id) for job_id, record in records.items() for place in record.places]
        assert len(places) == len(dict(places)), "two jobs hold one slot"
        assert held == dict(places)
        assert sorted(map(bytes.decode, pending)) == self.those(records, {State.QUEUED})
        assert sorted(map(bytes.decode, holding)) == self.those(records, HOLDING_A_SLOT)
        over = self.those(records, {state for state in State if state.terminal})
        kept = [job_id for job_id in over if not self.client.hexists(self.keys.job(job_id), "archive")]
        assert sorted(map(bytes.decode, ended)) == kept
        for job_id in set(over) - set(kept):
            assert self.store.events(job_id, after=0).last_sequence == records[job_id].job.sequence

    def what_was_deleted_stays_so_and_nobody_needs_it(self, records: dict[str, Record]) -> None:
        deletions = self.store.deletions()
        if not deletions and not self.gone:
            return
        self.gone |= {deletion.checkpoint_id or deletion.job_id for deletion in deletions}
        for job_id in self.gone & set(self.ids):
            assert not self.client.exists(*self.keys.all_of(job_id)), f"{job_id} is back"
        rows = self.link.run(*(("HKEYS", self.keys.checkpoints(job_id)) for job_id in records)) if records else []
        assert not self.gone & {name.decode() for names in rows for name in names}
        for record in records.values():
            if record.starts_from and not record.job.terminal:
                owner = record.starts_from.removeprefix("ckpt-").rpartition("-")[0]
                assert not self.gone & {record.starts_from, owner}, f"{record.job.id} starts from what was deleted"

    @staticmethod
    def those(records: dict[str, Record], states: set[State] | frozenset[State]) -> list[str]:
        return sorted(job_id for job_id, record in records.items() if record.job.state in states)


def test_whoever_comes_in_between_and_whoever_dies_the_ledger_stays_whole(
    redis_client: redis.Redis, tmp_path: Path
) -> None:
    wanted = int(os.environ.get("PODIUM_MODEL_EXAMPLES", "0"))
    run_state_machine_as_test(
        partial(Interleaved, redis_client, ArtifactStore(str(tmp_path))),  # type: ignore[arg-type]  # a factory will do
        settings=settings(
            max_examples=wanted or 25,
            stateful_step_count=60,
            deadline=None,
            derandomize=not wanted,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
