"""What only a ledger in another process can get wrong: lost answers, outages, restarts, mixed versions.

Long, because all of it is about what only Redis does, on the same few helpers.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from podium.api.v1 import job_pb2
from podium.jobs import wire
from podium.jobs.errors import StaleFenceError, UnavailableError
from podium.jobs.events import JobEvent, MetricBatch, StateChange
from podium.jobs.job import Checkpoint, Node, NodeState, Progress, Slot
from podium.jobs.settings import Settings
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Assignment, Drain, Leases, NewJob, Wish
from podium.jobs.store._redis_listing import _READ
from podium.jobs.store.redis import RedisStore, connect
from tests.contract.plays import everything, machine

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
NEW = NewJob(project="default", spec=SPEC, classes=("cat", "dog"))


@pytest.fixture
def store(redis_client: redis.Redis) -> RedisStore:
    return RedisStore(redis_client)


@pytest.fixture
def other(redis_url: str) -> Any:
    """The ledger as another process sees it."""
    settings = Settings(redis_url=redis_url, redis_password=None, artifacts="", data_roots=(), leases=Leases())
    with connect(settings) as client:
        yield RedisStore(client)


def start(store: RedisStore) -> Assignment:
    assignment = store.dispatch(store.create(NEW)[0].id, "n1", 0)
    store.begin(assignment)
    return assignment


def checkpoint_of(assignment: Assignment) -> Checkpoint:
    return Checkpoint(id="ckpt-a", job_id=assignment.job_id, attempt=assignment.attempt, step=3, best=True)


def payloads(store: RedisStore, job_id: str) -> list[object]:
    return [wire.from_bytes(JobEvent, event.data).payload for event in store.events(job_id, after=0).events]


@pytest.mark.parametrize("days", [-400, 400])
def test_a_machine_whose_clock_is_off_is_listed_and_hides_no_other(store, redis_client, days):
    wrong = RedisStore(redis_client, clock=lambda: datetime.now(UTC) + timedelta(days=days))
    machine(store, "n1")
    machine(wrong, "n2")

    assert [("n1", NodeState.READY), ("n2", NodeState.READY)] == [(node.id, node.state) for node in store.nodes()]
    assert NodeState.DRAINING is store.drain("n2", Drain.FINISH).state


def test_a_machine_whose_record_has_run_out_is_off_the_list_for_good(store, redis_client):
    machine(store, "n1")
    redis_client.delete("podium:node:n1")

    assert [] == list(store.nodes())
    assert 0 == redis_client.zcard("podium:nodes")


class Losses:
    """Makes the answer to a script get lost on its way back, and lets others act before it is tried again."""

    def __init__(self) -> None:
        self.armed = False
        self.happened = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def strike(self, command: str) -> bool:
        if not self.armed or command != "EVALSHA":
            return False
        self.armed = False
        self.happened += 1
        self.meanwhile()
        return True


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def lossy(redis_url: str, losses: Losses) -> Any:
    """A ledger whose connection loses answers; redis-py tries the command again by itself."""

    class LossyConnection(redis.UnixDomainSocketConnection):
        command = ""

        def send_command(self, *args: Any, **kwargs: Any) -> Any:
            super().send_command(*args, **kwargs)  # type: ignore[no-untyped-call]  # redis-py
            self.command = str(args[0])

        def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
            self.command = ""  # a pipeline's, until send_command says otherwise
            return super().send_packed_command(*args, **kwargs)  # type: ignore[no-untyped-call]  # redis-py

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            answer = super().read_response(*args, **kwargs)
            if losses.strike(self.command):
                self.disconnect()  # type: ignore[no-untyped-call]  # redis-py
                raise redis.ConnectionError("the answer was lost")
            return answer

    settings = Settings(redis_url=redis_url, redis_password=None, artifacts="", data_roots=(), leases=Leases())
    with connect(settings) as client:
        client.connection_pool.connection_class = LossyConnection
        yield RedisStore(client)


class TestLostAnswers:
    def test_every_write_that_is_tried_again_has_the_effect_of_one(
        self, lossy: RedisStore, losses: Losses, store: RedisStore
    ) -> None:
        def losing(call: Callable[[], Any]) -> Any:
            losses.armed = True
            try:
                return call()
            finally:
                assert not losses.armed, "no answer was lost"

        job, new = losing(lambda: lossy.create(NEW))
        assert new
        first = losing(lambda: lossy.dispatch(job.id, "n1", 0))
        assert losing(lambda: lossy.begin(first)).state is State.RUNNING
        assert losing(lambda: lossy.append(first, 1, [MetricBatch.at(1, {"loss": 1.0})])) == 4
        losing(lambda: lossy.commit_checkpoint(first, checkpoint_of(first)))
        assert losing(lambda: lossy.renew(first)) is Wish.CONTINUE
        losing(lambda: lossy.forget_checkpoint(first, "ckpt-a"))
        assert losing(lambda: lossy.recover(first, "lost")).state is State.QUEUED
        second = losing(lambda: lossy.dispatch(job.id, "n1", 0))
        lossy.begin(second)
        assert losing(lambda: lossy.cancel(job.id, "why")).state is State.CANCELLING
        assert losing(lambda: lossy.finish(second, State.CANCELLED, reason="asked")).state is State.CANCELLED

        assert losses.happened == 11
        states = [
            "QUEUED",
            "STARTING",
            "RUNNING",
            "RECOVERING",
            "QUEUED",
            "STARTING",
            "RUNNING",
            "CANCELLING",
            "CANCELLED",
        ]
        seen = payloads(store, job.id)
        assert states == [payload.to_state.name for payload in seen if isinstance(payload, StateChange)]
        assert len(states) + 2 == len(seen)
        assert 1 == len(list(store.metrics(job.id)))
        assert (2, 2) == (second.attempt, len(store.get(job.id).attempts))
        assert ([], []) == (store.pending("default"), store.holding())

    def test_a_write_is_known_as_done_even_when_others_wrote_before_it_was_tried_again(
        self, lossy: RedisStore, losses: Losses, store: RedisStore
    ) -> None:
        assignment = store.dispatch(store.create(NEW)[0].id, "n1", 0)

        losses.armed, losses.meanwhile = True, lambda: store.cancel(assignment.job_id, "why")
        assert lossy.begin(assignment).state is State.CANCELLING

        losses.armed, losses.meanwhile = True, lambda: store.forget_checkpoint(assignment, "ckpt-none")
        assert lossy.append(assignment, 1, [MetricBatch.at(1, {"loss": 1.0})]) == 5
        losses.armed, losses.meanwhile = True, lambda: store.append(assignment, 3, [])
        assert lossy.append(assignment, 2, [MetricBatch.at(2, {"loss": 1.0})]) == 6
        losses.armed, losses.meanwhile = True, lambda: store.append(assignment, 4, [])
        lossy.commit_checkpoint(assignment, checkpoint_of(assignment))

        kinds = [type(payload).__name__ for payload in payloads(store, assignment.job_id)]
        assert ["StateChange"] * 4 + ["MetricBatch"] * 2 + ["Checkpoint"] == kinds
        assert losses.happened == 4

    def test_a_creation_that_was_dispatched_before_its_answer_came_is_still_new(
        self, lossy: RedisStore, losses: Losses, store: RedisStore
    ) -> None:
        losses.armed, losses.meanwhile = True, lambda: store.dispatch(store.pending("default")[0], "n1", 0)
        job, new = lossy.create(NewJob(project="default", spec=SPEC, classes=(), request_id="once"))

        assert (True, State.STARTING) == (new, job.state)
        assert ([job], "") == store.list(project="default")

    def test_a_lock_is_still_ones_own_when_its_answer_was_lost(self, lossy: RedisStore, losses: Losses) -> None:
        losses.armed = True
        assert lossy.lead("a", 30)
        losses.armed = True
        lossy.resign("a")
        assert lossy.lead("b", 30)
        assert losses.happened == 2


class TestListing:
    def test_a_short_page_of_large_jobs_is_not_a_hundred_of_them_read(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        large = replace(NEW, classes=tuple(f"{number:03}".ljust(200) for number in range(100)))
        for _ in range(45):
            store.create(large)
        before = redis_client.info("stats")["total_net_output_bytes"]
        store.list(project="default", limit=2)

        # Of 20 kB each.
        assert redis_client.info("stats")["total_net_output_bytes"] - before < 600_000

    def test_a_page_that_finds_nothing_ends_early_and_the_next_one_goes_on(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [store.create(NEW)[0].id for _ in range(7)]
        monkeypatch.setattr("podium.jobs.store._redis_listing._PATIENCE", 3 * _READ)
        asked: list[str] = []

        def is_first(job: job_pb2.Job) -> bool:
            asked.append(job.id)
            return job.id == ids[0]

        pages: list[list[str]] = []
        cursor = ""
        while not pages or cursor:
            jobs, cursor = store.list(project="default", wanted=is_first, cursor=cursor)
            pages.append([job.id for job in jobs])

        assert ([[], [], [ids[0]]], ids[::-1]) == (pages, asked)


class TestOutage:
    def test_what_was_accepted_survives_the_death_of_redis(self, redis_server: Any, store: RedisStore) -> None:
        waiting, assignment = store.create(NEW)[0], start(store)
        store.append(assignment, 1, [MetricBatch.at(1, {"loss": 1.0}), Progress(phase="training", step=1)])
        store.commit_checkpoint(assignment, checkpoint_of(assignment))
        running = store.get(assignment.job_id)
        redis_server.restart()

        assert waiting == store.get(waiting.id)
        assert running == store.get(running.id)
        assert [waiting.id] == list(store.pending("default"))
        assert [assignment] == [held for _, held, _ in store.holding()]
        assert 6 == len(store.events(running.id, after=0).events)
        assert [1] == [attempt for attempt, _ in store.metrics(running.id)]
        assert store.append(assignment, 2, [Progress(phase="training", step=2)]) == 7
        assert store.create(NEW)[0].id not in (waiting.id, running.id)
        assert store.checkpoint("ckpt-a").best

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.create(NEW),
            lambda store: store.get("job-a"),
            lambda store: store.list(project="default"),
            lambda store: store.lead("a", 1),
            lambda store: store.nodes(),
            lambda store: store.bell().__enter__(),
            lambda store: store.renew(Assignment(job_id="job-a", attempt=1, fence=1)),
        ],
    )
    def test_an_outage_is_unavailable(self, redis_server: Any, call: Callable[[RedisStore], object]) -> None:
        with redis.Redis.from_url(redis_server.url, retry=None) as client:
            store = RedisStore(client)
            redis_server.kill()
            with pytest.raises(UnavailableError, match="try again"):
                call(store)

    @pytest.mark.parametrize(
        ("impede", "mend"),
        [
            (("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)),
            (("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE")),
        ],
        ids=["full", "a replica"],
    )
    def test_a_redis_that_takes_no_writes_is_unavailable_and_nothing_is_lost(
        self, redis_client: redis.Redis, impede: tuple[Any, ...], mend: tuple[Any, ...]
    ) -> None:
        store = RedisStore(redis_client)
        assignment = start(store)
        redis_client.execute_command(*impede)  # type: ignore[no-untyped-call]  # redis-py
        try:
            for call in (
                lambda: store.create(NEW),
                lambda: store.renew(assignment),
                lambda: store.append(assignment, 1, [Progress(phase="training", step=1)]),
                lambda: store.finish(assignment, State.SUCCEEDED, reason="done"),
                lambda: store.lead("a", 1),
            ):
                with pytest.raises(UnavailableError, match="takes no writes now"):
                    call()
        finally:
            redis_client.execute_command(*mend)  # type: ignore[no-untyped-call]  # redis-py

        assert State.SUCCEEDED is store.finish(assignment, State.SUCCEEDED, reason="done").state

    def test_a_redis_that_is_full_is_read_as_ever(self, redis_client: redis.Redis) -> None:
        store = RedisStore(redis_client)
        machine(store)
        assignment, waiting = start(store), store.create(NEW)[0]
        store.append(assignment, 1, [MetricBatch.at(1, {"loss": 1.0}), Progress(phase="training", step=1)])
        store.commit_checkpoint(assignment, checkpoint_of(assignment))

        def seen() -> object:
            jobs = [everything(store, job_id) for job_id in (assignment.job_id, waiting.id)]
            listed = store.list(project="default", states=frozenset({State.QUEUED, State.RUNNING}))
            return jobs, listed, store.nodes(), store.line("default"), store.silent(), store.usage()

        before = seen()
        redis_client.config_set("maxmemory", 1)
        try:
            assert before == seen()
        finally:
            redis_client.config_set("maxmemory", 0)

    def test_a_begin_that_was_cut_short_may_be_repeated_by_its_process_only(
        self, redis_server: Any, lossy: RedisStore, losses: Losses, other: RedisStore
    ) -> None:
        assignment = other.dispatch(other.create(NEW)[0].id, "n1", 0)
        losses.armed, losses.meanwhile = True, redis_server.kill
        with pytest.raises(UnavailableError):
            lossy.begin(assignment)
        redis_server.start()

        with pytest.raises(StaleFenceError):
            other.begin(assignment)
        assert lossy.begin(assignment).state is State.RUNNING
        with pytest.raises(StaleFenceError):
            lossy.begin(assignment)

    def test_the_bell_rings_again_after_an_outage(self, redis_server: Any, store: RedisStore) -> None:
        with store.bell() as bell:
            redis_server.kill()
            with pytest.raises(UnavailableError):
                bell.wait(0.5)
            redis_server.start()
            assert frozenset() == bell.wait(0.01)
            job_id = store.create(NEW)[0].id
            assert {job_id} == bell.wait(10)

    def test_the_bell_waits_longer_than_a_socket_may(self, redis_url: str, other: RedisStore) -> None:
        with redis.Redis.from_url(redis_url, socket_timeout=0.1) as client, RedisStore(client).bell() as bell:
            timer = threading.Timer(0.4, other.create, (NEW,))
            timer.start()
            assert 1 == len(bell.wait(10))
            timer.join()


class TestProcesses:
    def test_of_many_processes_that_begin_one_wins(self, store: RedisStore, redis_url: str) -> None:
        assignment = store.dispatch(store.create(NEW)[0].id, "n1", 0)
        gate, won = threading.Barrier(4), []

        def begin() -> None:
            with redis.Redis.from_url(redis_url) as client:
                mine = RedisStore(client)
                gate.wait()
                with contextlib.suppress(StaleFenceError):
                    won.append(mine.begin(assignment))

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 == len(won)

    def test_writers_of_one_job_do_not_lose_each_others_events(self, store: RedisStore, other: RedisStore) -> None:
        assignment = start(store)

        def write() -> None:
            for batch in range(1, 51):
                store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0})])

        def renew() -> None:
            for _ in range(50):
                other.renew(assignment)
                other.forget_checkpoint(assignment, "ckpt-none")

        def register() -> None:
            for step in range(20):
                other.commit_checkpoint(
                    assignment, Checkpoint(id=f"ckpt-{step}", job_id=assignment.job_id, attempt=1, step=step)
                )

        threads = [threading.Thread(target=work) for work in (write, renew, register)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        page = store.events(assignment.job_id, after=0)
        assert list(range(1, 3 + 50 + 20 + 1)) == [event.sequence for event in page.events]
        assert 50 == len(list(store.metrics(assignment.job_id)))
        assert 20 == len(store.checkpoints(assignment.job_id))


def raw(answer: object) -> bytes:
    assert isinstance(answer, bytes)
    return answer


class TestKeys:
    def test_what_a_newer_version_wrote_into_a_spec_survives(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        job_id = store.create(NEW)[0].id
        key = f"podium:job:{job_id}"
        born = job_pb2.Job.FromString(raw(redis_client.hget(key, "born")))
        field_900 = b"\xa2\x38\x03new"
        born.spec.MergeFromString(field_900)
        redis_client.hset(key, "born", born.SerializeToString())

        assignment = store.dispatch(job_id, "n1", 0)
        store.begin(assignment)
        store.finish(assignment, State.SUCCEEDED, reason="done")
        kept = job_pb2.Job.FromString(raw(redis_client.hget(key, "born")))
        assert field_900 in kept.spec.SerializeToString()
        assert field_900 in store.serialized(job_id)[1]
        assert SPEC == store.get(job_id).spec

    def test_a_job_is_listed_by_its_state_also_where_a_version_wrote_last_that_does_not_write_it_beside(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        job_id = store.create(NEW)[0].id
        before = redis_client.hget(f"podium:job:{job_id}", "state")
        store.cancel(job_id, "not needed")
        redis_client.hset(f"podium:job:{job_id}", "state", before)

        assert [job_id] == [job.id for job in store.list(project="default", states=frozenset({State.CANCELLED}))[0]]
        assert [] == store.list(project="default", states=frozenset({State.QUEUED}))[0]

    def test_a_request_id_is_remembered_for_seven_days(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.create(NewJob(project="a:b", spec=SPEC, classes=(), request_id="c/d"))
        (key,) = redis_client.keys("podium:request:*")

        assert 604_800 - 60 < redis_client.ttl(key) <= 604_800

    def test_two_prefixes_are_two_ledgers(self, redis_client: redis.Redis) -> None:
        one, two = RedisStore(redis_client, prefix="one:"), RedisStore(redis_client, prefix="two:")
        one.create(NEW)

        assert (1, 0) == (len(one.pending("default")), len(two.pending("default")))
        assert {b"one"} == {raw(key).split(b":")[0] for key in redis_client.keys("*")}

    def test_an_ended_job_leaves_nothing_in_queues_slots_and_leases(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
        assignment = start(store)
        store.finish(assignment, State.SUCCEEDED, reason="done")
        left = {raw(key).decode().replace(assignment.job_id, "ID") for key in redis_client.keys("*")}

        assert {
            "podium:job:ID",
            "podium:job:ID:events",
            "podium:jobs:default",
            "podium:ended",
            "podium:tally",
            "podium:pools",
            "podium:created",
            "podium:notices",
            "podium:nodes",
            "podium:node:n1",
            "podium:node:n1:lease",
        } == left

    def test_the_password_is_sent_and_a_wrong_one_is_unavailable(self, redis_server: Any) -> None:
        with redis.Redis.from_url(redis_server.url) as admin:
            admin.config_set("requirepass", "right")
            try:
                for password, works in (("right", True), ("wrong", False)):
                    settings = Settings(
                        redis_url=redis_server.url,
                        redis_password=password,
                        artifacts="",
                        data_roots=(),
                        leases=Leases(),
                    )
                    with connect(settings) as client:
                        if works:
                            assert [] == RedisStore(client).pending("default")
                        else:
                            with pytest.raises(UnavailableError, match=r"(?i)password"):
                                RedisStore(client).pending("default")
            finally:
                admin.config_set("requirepass", "")
