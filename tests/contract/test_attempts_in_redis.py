"""A job's ended attempts stand apart from what every batch writes, also beside a version that knows no such place."""

import json
from collections.abc import Sequence

import pytest
import redis

from podium.api.v1 import job_pb2
from podium.jobs import wire
from podium.jobs.job import Attempt, Cause, Progress
from podium.jobs.store import Assignment
from podium.jobs.store.redis import RedisStore
from tests.contract.plays import submit


@pytest.fixture
def store(redis_client: redis.Redis) -> RedisStore:
    return RedisStore(redis_client)


def preempted_once_more(store: RedisStore, job_id: str) -> Assignment:
    """An attempt that began and gave its job back."""
    assignment = store.dispatch(job_id, "n1", 0)
    store.begin(assignment)
    store.recover(assignment, f"preempted, {assignment.attempt}", cause=Cause.PREEMPTED)
    return assignment


def test_a_batch_writes_no_more_after_many_attempts_than_after_one(
    store: RedisStore, redis_client: redis.Redis
) -> None:
    job_id = submit(store).id
    written = []
    for _ in range(2):
        for _ in range(5):
            preempted_once_more(store, job_id)
        assignment = store.dispatch(job_id, "n1", 0)
        key = f"podium:job:{job_id}"
        past = redis_client.hget(key, "past")
        store.append(assignment, 1, [Progress(phase="training", step=7)])
        written.append(redis_client.hstrlen(key, "now") + redis_client.hstrlen(key, "ledger"))
        assert past == redis_client.hget(key, "past")
        store.recover(assignment, "preempted", cause=Cause.PREEMPTED)

    assert written[1] - written[0] < 10
    assert list(range(1, 13)) == [attempt.number for attempt in store.get(job_id).attempts]


class AnOlderVersion:
    """It knows of born, now and ledger alone."""

    def __init__(self, client: redis.Redis, job_id: str) -> None:
        self._client = client
        self._key = f"podium:job:{job_id}"

    def write(self) -> None:
        """A write that leaves the attempts as this version sees them."""
        self._write(job_pb2.Job.FromString(self._field("now")))

    def write_with(self, attempts: Sequence[Attempt]) -> None:
        """A write with these attempts, all of them in `now`."""
        job = job_pb2.Job.FromString(self._field("now"))
        del job.attempts[:]
        job.attempts.extend(map(wire.to_proto, attempts))
        self._write(job)

    def _write(self, job: job_pb2.Job) -> None:
        ledger = {name: value for name, value in json.loads(self._field("ledger")).items() if name != "past"}
        self._client.hset(self._key, mapping={"now": job.SerializeToString(), "stamp": "older"})
        self._client.hset(self._key, "ledger", json.dumps(ledger))

    def _field(self, name: str) -> bytes:
        value = self._client.hget(self._key, name)
        assert isinstance(value, bytes)
        return value


def test_what_an_older_version_writes_after_a_newer_one_doubles_and_loses_no_attempt(
    store: RedisStore, redis_client: redis.Redis
) -> None:
    job_id = submit(store).id
    for _ in range(3):
        preempted_once_more(store, job_id)
    store.dispatch(job_id, "n1", 0)
    before = store.get(job_id)
    older = AnOlderVersion(redis_client, job_id)
    older.write()
    assert before == store.get(job_id)

    older.write_with(before.attempts)
    assert before == store.get(job_id)


def test_what_a_newer_version_writes_after_an_older_one_keeps_all_attempts(
    store: RedisStore, redis_client: redis.Redis
) -> None:
    job_id = submit(store).id
    for _ in range(3):
        preempted_once_more(store, job_id)
    store.dispatch(job_id, "n1", 0)
    before = store.get(job_id)
    redis_client.hdel(f"podium:job:{job_id}", "past")
    AnOlderVersion(redis_client, job_id).write_with(before.attempts)
    assert before == store.get(job_id)

    assignment = store.holding([job_id])[0][1]
    store.append(assignment, 1, [Progress(phase="training", step=7)])
    assert before.attempts == store.get(job_id).attempts
    store.recover(assignment, "preempted", cause=Cause.PREEMPTED)
    preempted_once_more(store, job_id)
    assert [1, 2, 3, 4, 5] == [attempt.number for attempt in store.get(job_id).attempts]


def test_an_attempt_that_an_older_version_ended_is_shown_as_it_ended(
    store: RedisStore, redis_client: redis.Redis
) -> None:
    job_id = submit(store).id
    for _ in range(2):
        preempted_once_more(store, job_id)
    ended = store.get(job_id).attempts
    AnOlderVersion(redis_client, job_id).write_with(ended)
    assert ended == store.get(job_id).attempts

    assignment = store.dispatch(job_id, "n1", 1)
    assert ended == store.get(job_id).attempts[:2]
    store.begin(assignment)
    assert ended == store.get(job_id).attempts[:2]
