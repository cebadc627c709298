"""What an operator is told of a ledger as a whole."""

import redis

from podium.jobs.job import Cause, JobError
from podium.jobs.spec import Priority, Resources
from podium.jobs.states import State
from podium.jobs.store.redis import RedisStore
from tests.conftest import RedisServer
from tests.contract.plays import machine, start, submit


def test_an_empty_ledger_has_nothing_to_count(store):
    found = store.census()

    assert ([], {}, {}, {}, 0) == (
        list(found.nodes),
        found.queued,
        found.attempts_ended,
        found.jobs_ended,
        found.unarchived,
    )


def test_what_waits_is_counted_by_pool_and_class_where_no_machine_is_too(store):
    machine(store)
    for priority in (Priority.URGENT, Priority.NORMAL, Priority.NORMAL, Priority.LOW):
        submit(store, priority=priority)
    submit(store, resources=Resources(pool="nobody-there"))
    start(store)

    assert {
        ("default", Priority.URGENT): 1,
        ("default", Priority.NORMAL): 2,
        ("default", Priority.LOW): 1,
        ("nobody-there", Priority.NORMAL): 1,
    } == dict(store.census().queued)


def test_a_job_of_another_class_is_counted_there(store):
    job_id = submit(store).id
    store.update(job_id, priority=Priority.HIGH, labels={})

    assert {("default", Priority.HIGH): 1} == dict(store.census().queued)


def test_every_attempt_that_ends_is_counted_by_its_cause_and_every_job_by_its_state(store):
    done, failed, lost = start(store), start(store, slot=1), start(store, slot=2)
    store.finish(done, State.SUCCEEDED, reason="done")
    store.finish(failed, State.FAILED, reason="", error=JobError(cause=Cause.DATA, message="no image"))
    store.recover(lost, "the machine was lost", cause=Cause.NODE_LOST)
    store.cancel(lost.job_id, "not needed")
    forced = start(store)
    store.cancel(forced.job_id, "now", force=True)

    found = store.census()
    assert {None: 2, Cause.DATA: 1, Cause.NODE_LOST: 1} == dict(found.attempts_ended)
    assert {State.SUCCEEDED: 1, State.FAILED: 1, State.CANCELLED: 2} == dict(found.jobs_ended)
    assert 4 == found.unarchived


def test_what_is_said_twice_is_counted_once(store):
    assignment = start(store)
    for _ in range(3):
        store.finish(assignment, State.SUCCEEDED, reason="done")

    assert {None: 1} == dict(store.census().attempts_ended)
    assert {State.SUCCEEDED: 1} == dict(store.census().jobs_ended)


def test_a_job_that_fails_in_the_end_has_every_one_of_its_attempts_counted(store):
    assignment = start(store)
    for _ in range(4):
        store.recover(assignment, "another job took the slot", cause=Cause.PREEMPTED)
        assignment = store.dispatch(assignment.job_id, "n1", 0)
    store.finish(assignment, State.FAILED, reason="", error=JobError(cause=Cause.DATA, message="no image"))

    assert {Cause.PREEMPTED: 4, Cause.DATA: 1} == dict(store.census().attempts_ended)


def test_machines_and_histories_are_counted_as_they_stand(world):
    machine(world.store, slots=2)
    assignment = start(world.store)
    world.store.finish(assignment, State.SUCCEEDED, reason="done")
    running = start(world.store)

    (node,) = world.store.census().nodes
    assert [running.job_id, ""] == [slot.job_id for slot in node.slots]
    assert 1 == world.store.census().unarchived
    world.store.archive(assignment.job_id)
    assert 0 == world.store.census().unarchived


def test_a_ledger_is_doubted_that_would_forget_or_delete_jobs(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("d"))
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            store = RedisStore(client)
            assert [] == list(store.doubts())

            client.config_set("appendonly", "no")
            client.config_set("maxmemory-policy", "allkeys-lru")
            forgets, deletes = store.doubts()
    finally:
        server.kill()

    assert "set appendonly yes" in forgets
    assert "(allkeys-lru); set maxmemory-policy noeviction" in deletes
