"""How attempts end that did not end their job, in every ledger: causes, pauses, and when the job is over too."""

import pytest

from podium.jobs import retries
from podium.jobs.errors import FailedPreconditionError, StaleFenceError
from podium.jobs.events import LogBatch, LogLine, StateChange
from podium.jobs.job import Cause
from podium.jobs.states import State
from tests.contract.plays import checkpoint_of, history, moves, start, submit

USER = [cause for cause in Cause if cause not in retries.LIMITS and cause is not Cause.PREEMPTED]


@pytest.mark.parametrize("cause", retries.LIMITS)
def test_what_is_not_the_jobs_fault_is_tried_again_up_to_its_limit(world, cause: Cause) -> None:
    job_id = submit(world.store).id
    for count in range(1, retries.LIMITS[cause] + 1):
        assignment = world.store.dispatch(job_id, "n1", 0)
        job = world.store.recover(assignment, f"it ended, {count}", cause=cause)
        assert (cause, f"it ended, {count}") == (job.attempts[-1].cause, job.attempts[-1].outcome)
        world.clock.advance(seconds=60)

    assert (State.FAILED, cause) == (job.state, job.error.cause)
    assert job.error.remedy
    assert (job.error.message, None) == (job.state_reason, job.retry_time)
    assert moves(world.store, job_id)[-2:] == ["RECOVERING", "FAILED"]
    end = history(world.store, job_id)[-1].payload
    assert isinstance(end, StateChange)
    assert end.error == job.error
    assert ([], []) == (list(world.store.holding()), list(world.store.pending("default")))


@pytest.mark.parametrize("cause", USER)
def test_what_is_the_jobs_fault_ends_it_at_once(store, cause: Cause) -> None:
    job = store.recover(start(store), "no such layer", cause=cause)

    assert (State.FAILED, cause, "no such layer") == (job.state, job.error.cause, job.error.message)


def test_a_checkpoint_makes_up_for_what_came_before(world) -> None:
    store, job_id = world.store, submit(world.store).id
    step = 0
    for round_number in range(3):
        for _ in range(retries.LIMITS[Cause.OOM_HOST] - 1):
            assignment = store.dispatch(job_id, "n1", 0)
            store.begin(assignment, resumed_from_step=step)
            store.recover(assignment, "killed", cause=Cause.OOM_HOST)
            world.clock.advance(seconds=60)
        assignment = store.dispatch(job_id, "n1", 0)
        store.begin(assignment, resumed_from_step=step)
        step += 10
        store.commit_checkpoint(assignment, checkpoint_of(assignment, f"{round_number}", step))
        job = store.recover(assignment, "killed", cause=Cause.OOM_HOST)
        last = job.attempts[-1]
        assert (State.QUEUED, f"ckpt-{round_number}", step) == (job.state, last.checkpoint_id, last.checkpoint_step)


def test_a_job_waits_longer_from_failure_to_failure_and_is_not_started_before(world) -> None:
    store, job_id = world.store, submit(world.store).id
    waits = []
    for _ in range(4):
        job = store.recover(store.dispatch(job_id, "n1", 0), "killed", cause=Cause.INTERNAL)
        waits.append((job.retry_time - world.clock.now).total_seconds() if job.retry_time else 0)
        assert job == store.get(job_id)
        if waits[-1]:
            with pytest.raises(FailedPreconditionError) as caught:
                store.dispatch(job_id, "n1", 0)
            assert caught.value.reason == "NOT_YET"
            assert job == store.get(job_id)
            world.clock.advance(seconds=waits[-1])

    assert [0, 2, 4, 8] == waits
    assert store.get(store.dispatch(job_id, "n1", 0).job_id).retry_time is None


def test_a_job_that_waits_for_its_next_attempt_can_be_paused_and_cancelled(world) -> None:
    store = world.store
    for ask, state in ((store.pause, State.PAUSED), (store.cancel, State.CANCELLED)):
        job_id = submit(store).id
        assert store.recover(store.dispatch(job_id, "n1", 0), "disk full", cause=Cause.STORAGE).retry_time
        job = ask(job_id, "why")
        assert (state, None) == (job.state, job.retry_time)


def test_last_words_are_in_the_log_before_the_move(store) -> None:
    assignment = start(store)
    lines = (LogLine(text="stack of rank 0"), LogLine(text="stack of rank 1"))
    store.recover(assignment, "no step for 600 s", cause=Cause.STALLED, lines=lines)

    said, *moved = history(store, assignment.job_id)[-3:]
    assert LogBatch(lines=lines) == said.payload
    assert ["StateChange"] * 2 == [type(event.payload).__name__ for event in moved]
    assert {1} == {event.attempt for event in (said, *moved)}


def test_an_attempt_that_has_lost_its_job_has_no_last_words(store) -> None:
    assignment = start(store)
    store.recover(assignment, "its lease ran out")
    before = history(store, assignment.job_id)
    with pytest.raises(StaleFenceError):
        store.recover(assignment, "stalled", cause=Cause.STALLED, lines=(LogLine(text="stack of rank 0"),))

    assert before == history(store, assignment.job_id)


def test_every_attempt_stays_visible(world) -> None:
    store = world.store
    job_id = submit(store).id
    for node, cause in (("n1", Cause.NODE_LOST), ("n2", Cause.PREEMPTED), ("n3", Cause.STORAGE)):
        world.clock.advance(seconds=100)
        store.recover(store.dispatch(job_id, node, 0), f"for {cause.name}", cause=cause)

    attempts = store.get(job_id).attempts
    assert [1, 2, 3] == [attempt.number for attempt in attempts]
    assert ["n1", "n2", "n3"] == [attempt.node for attempt in attempts]
    assert all(attempt.start_time == attempt.end_time for attempt in attempts)
    assert ["for NODE_LOST", "for PREEMPTED", "for STORAGE"] == [attempt.outcome for attempt in attempts]
    assert [Cause.NODE_LOST, Cause.PREEMPTED, Cause.STORAGE] == [attempt.cause for attempt in attempts]


@pytest.mark.parametrize("cause", Cause)
def test_a_job_that_is_being_cancelled_is_cancelled_whatever_its_attempt_died_of(store, cause: Cause) -> None:
    assignment = start(store)
    store.cancel(assignment.job_id, "why")
    job = store.recover(assignment, "died", cause=cause)

    assert (State.CANCELLED, None) == (job.state, job.error)
    assert store.get(job.id) == job
