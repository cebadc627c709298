"""What the script refuses, whoever asks: commands as they are, past everything that Python decides."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import redis

from podium.jobs.events import JobEvent, StateChange
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Priority, Weights
from podium.jobs.states import MOVES, State
from podium.jobs.store import NewJob, utc_now
from podium.jobs.store._birth import birth_of
from podium.jobs.store._record import Change, Record
from podium.jobs.store._redis_link import Link, Move
from podium.jobs.store.redis import RedisStore

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
NEW = NewJob(project="default", spec=SPEC, classes=("cat", "dog"))
KEY = "job"
PAIRS = list(itertools.product(State, State))


@pytest.fixture
def link(redis_client: redis.Redis) -> Link:
    return Link(redis_client)


def move(*path: State, stamp: str = "s1", state: State = State.QUEUED, **changes: Any) -> Move:
    """A write that follows stamp s1, in QUEUED with fence 3, unless it says otherwise."""
    fields: dict[str, Any] = {"next_stamp": "s2", "fence": 3, "shown": None, "next_fence": 3} | changes
    return Move(stamp=stamp, state=state, path=path, **fields)


def as_written(client: redis.Redis, state: State, fence: int = 3) -> None:
    """A job as the script leaves it."""
    client.hset(KEY, mapping={"stamp": "s1", "state": f"{state.name} {fence} s1"})


def everything(client: redis.Redis) -> dict[object, object]:
    """All keys and what is in them."""
    return {key: client.dump(key) for key in client.keys("*")}


class TestMoves:
    def test_of_all_pairs_of_states_it_allows_those_of_the_table(self, link: Link, redis_client: redis.Redis) -> None:
        allowed = set()
        for state, to in PAIRS:
            as_written(redis_client, state)
            if link.commit(KEY, move(to), [], [("SET", "effect", f"{state}{to}")]) == "done":
                assert redis_client.hget(KEY, "state") == f"{to.name} 3 s2".encode()
                allowed.add((state, to))
            else:
                assert redis_client.get("effect") != f"{state}{to}".encode()

        assert {(state, to) for state, tos in MOVES.items() for to in tos} == allowed

    def test_what_the_writer_believes_of_the_state_changes_nothing(self, link: Link, redis_client: redis.Redis) -> None:
        for state, to in PAIRS:
            as_written(redis_client, state)
            believed = next(one for one in State if to in MOVES[one])
            assert (link.commit(KEY, move(to, state=believed), [], []) == "done") is (to in MOVES[state])

    def test_several_moves_at_once_are_judged_one_by_one(self, link: Link, redis_client: redis.Redis) -> None:
        as_written(redis_client, State.RUNNING)
        before = everything(redis_client)
        assert link.commit(KEY, move(State.RECOVERING, State.SUCCEEDED), [], [("SET", "effect", 1)]) == "illegal"
        assert before == everything(redis_client)

        assert link.commit(KEY, move(State.RECOVERING, State.QUEUED), [], []) == "done"
        assert redis_client.hget(KEY, "state") == b"QUEUED 3 s2"

    @pytest.mark.parametrize("end", [state for state in State if state.terminal])
    def test_nothing_at_all_is_written_to_a_job_that_has_ended(
        self, link: Link, redis_client: redis.Redis, end: State
    ) -> None:
        as_written(redis_client, end)
        before = everything(redis_client)

        assert link.commit(KEY, move(), [], [("XADD", "events", "9-0", "d", "late")]) == "illegal"
        assert before == everything(redis_client)

    def test_no_command_gets_round_it(self, link: Link, redis_client: redis.Redis) -> None:
        as_written(redis_client, State.QUEUED)
        forged = [("HSET", KEY, "state", "SUCCEEDED 9 s2", "stamp", "mine")]

        assert link.commit(KEY, move(State.STARTING, next_fence=4), [], forged) == "done"
        assert {b"stamp": b"s2", b"state": b"STARTING 4 s2"} == redis_client.hgetall(KEY)

    def test_a_job_that_there_is_not_is_not_moved(self, link: Link, redis_client: redis.Redis) -> None:
        for state in State:
            assert link.commit(KEY, move(state), [], [("SET", "effect", 1)]) == "overtaken"
        assert {} == everything(redis_client)

    def test_python_judges_every_move_alike(self, redis_client: redis.Redis) -> None:
        """The rule that MemoryStore obeys, and the script's."""
        store = RedisStore(redis_client)
        record = store._load(store.create(NEW)[0].id)
        assert record is not None
        from_state = {state: Record(job=_with(record, state).job, number=1) for state in State}

        for state, to in PAIRS:
            assert _moving(from_state[state], to).follows(from_state[state]) is (to in MOVES[state])


def _with(record: Record, state: State) -> Record:
    return replace(record, job=replace(record.job, state=state, terminal=state.terminal))


def _moving(record: Record, to: State) -> Change:
    return Change(record=_with(record, to), events=(JobEvent(payload=StateChange(to_state=to)),))


class TestFence:
    @pytest.mark.parametrize(("shown", "answer"), [(3, "done"), (2, "fenced"), (4, "fenced"), (None, "done")])
    def test_a_fence_that_is_shown_is_the_jobs(
        self, link: Link, redis_client: redis.Redis, shown: int | None, answer: str
    ) -> None:
        as_written(redis_client, State.RUNNING)

        # The fence that was read is a lie: only the ledger's own counts.
        assert link.commit(KEY, move(state=State.RUNNING, shown=shown, fence=shown or 0), [], []) == answer

    def test_it_never_falls(self, link: Link, redis_client: redis.Redis) -> None:
        as_written(redis_client, State.RUNNING)
        assert link.commit(KEY, move(state=State.RUNNING, next_fence=2), [], []) == "illegal"


class TestStamp:
    @pytest.mark.parametrize("stamp", ["", "s0", "s2"])
    def test_who_read_another_one_is_overtaken(self, link: Link, redis_client: redis.Redis, stamp: str) -> None:
        as_written(redis_client, State.QUEUED)
        before = everything(redis_client)

        assert link.commit(KEY, move(State.STARTING, stamp=stamp), [], [("SET", "effect", 1)]) == "overtaken"
        assert before == everything(redis_client)

    def test_a_guard_that_finds_something_stops_everything(self, link: Link, redis_client: redis.Redis) -> None:
        as_written(redis_client, State.QUEUED)
        redis_client.set("taken", 1)
        before = everything(redis_client)

        guards: list[Any] = [(0, "EXISTS", "free"), (0, "EXISTS", "taken")]
        assert link.commit(KEY, move(State.STARTING), guards, [("SET", "effect", 1)]) == "refused"
        assert before == everything(redis_client)


class TestOlderVersions:
    """They wrote `stamp` and no `state`, and go on doing so beside a newer one."""

    def test_what_they_left_is_read_and_moved_on(self, redis_client: redis.Redis) -> None:
        store = RedisStore(redis_client)
        job = store.create(NEW)[0]
        redis_client.hdel(f"podium:job:{job.id}", "state")

        assert job == store.get(job.id)
        assert store.serialized(job.id)[0] is State.QUEUED
        assert store.begin(store.dispatch(job.id, "n1", 0)).state is State.RUNNING

    def test_a_state_that_they_overtook_is_not_believed(self, redis_client: redis.Redis) -> None:
        store = RedisStore(redis_client)
        assignment = store.dispatch(store.create(NEW)[0].id, "n1", 0)
        key = f"podium:job:{assignment.job_id}"
        state = redis_client.hget(key, "state")
        store.begin(assignment)
        assert isinstance(state, bytes)
        redis_client.hset(key, "state", state)

        assert store.get(assignment.job_id).state is store.serialized(assignment.job_id)[0] is State.RUNNING
        assert store.finish(assignment, State.SUCCEEDED, reason="done").state is State.SUCCEEDED
        assert store.get(assignment.job_id).state is State.SUCCEEDED

    def test_what_a_newer_version_keeps_of_a_job_is_passed_over(self, redis_client: redis.Redis) -> None:
        store = RedisStore(redis_client)
        job = store.create(NEW)[0]
        key = f"podium:job:{job.id}"
        ledger = redis_client.hget(key, "ledger")
        assert isinstance(ledger, bytes)
        redis_client.hset(key, "ledger", ledger.replace(b"{", b'{"colour": "red", ', 1))

        assert job == store.get(job.id)


class TestNewJobs:
    def test_a_new_job_gets_its_number_and_place_as_it_is_written(self, redis_client: redis.Redis) -> None:
        redis_client.set("podium:created", 41)
        redis_client.zadd("podium:pending:default", {"of its class": 41 - 2 * 2**50, "urgent": 1 - 3 * 2**50})
        store = RedisStore(redis_client)
        made = store.submit(replace(NEW, spec=replace(SPEC, priority=Priority.NORMAL), id="job-a"))
        record = store._load(made.id)

        assert record is not None
        assert (record.number, made.place) == (42, store.place("job-a", "default"))
        assert redis_client.zscore("podium:pending:default", "job-a") == record.score
        assert redis_client.zscore("podium:jobs:default", "job-a") == 42

    @pytest.mark.parametrize("request_id", ["", "r1"])
    def test_writing_it_again_changes_nothing(self, redis_client: redis.Redis, request_id: str) -> None:
        store = RedisStore(redis_client)
        birth = birth_of(replace(NEW, request_id=request_id), "job-a", utc_now())
        assert store._enter(birth) == 1
        before = everything(redis_client)

        assert store._enter(birth) == 1
        assert before == everything(redis_client)
        store.dispatch("job-a", "n1", 0)
        assert store._enter(birth) == 0
        assert store.get("job-a").state is State.STARTING

    def test_what_is_refused_leaves_nothing_and_takes_no_number(self, redis_client: redis.Redis) -> None:
        store = RedisStore(redis_client)
        store.submit(replace(NEW, request_id="r1"))
        before = everything(redis_client)

        gone = replace(SPEC, weights=Weights(checkpoint="ckpt-gone"))
        for new in (replace(NEW, request_id="r1"), replace(NEW, spec=gone), replace(NEW, spec=gone, request_id="r2")):
            assert store._enter(birth_of(new, "job-a", utc_now())) is None
        assert before == everything(redis_client)
