"""What the world outside is told of a job, in every ledger."""

from datetime import timedelta

import pytest

from podium.jobs.job import Cause, JobError
from podium.jobs.notices import from_json, to_json
from podium.jobs.states import State
from podium.jobs.store import Bookmark, JobStore
from podium.jobs.store.redis import RedisStore
from tests.contract.plays import start, submit


def told(store: JobStore) -> list[tuple[str, str, State, Cause | None]]:
    return [(notice.id, notice.event, notice.state, notice.cause) for _, notice in store.notices(after="", limit=100)]


def test_every_end_of_a_job_is_told_once(store):
    done, failed, cancelled = start(store), start(store, slot=1), submit(store).id
    broken = JobError(cause=Cause.DATA, message="unreadable")
    for _ in range(2):
        store.finish(done, State.SUCCEEDED, reason="")
        store.finish(failed, State.FAILED, reason="", error=broken)
        store.cancel(cancelled, "")

    assert [
        (f"{done.job_id}-1-SUCCEEDED", "SUCCEEDED", State.SUCCEEDED, None),
        (f"{failed.job_id}-1-FAILED", "FAILED", State.FAILED, Cause.DATA),
        (f"{cancelled}-0-CANCELLED", "CANCELLED", State.CANCELLED, None),
    ] == told(store)


def test_a_stall_is_told_and_so_is_the_failure_that_it_becomes(world):
    job_id = submit(world.store).id
    for _ in range(3):
        assignment = world.store.dispatch(job_id, "n1", 0)
        world.store.recover(assignment, "no step", cause=Cause.STALLED)
        world.clock.advance(seconds=60)

    assert [
        (f"{job_id}-1-STALLED", "STALLED", State.QUEUED, Cause.STALLED),
        (f"{job_id}-2-STALLED", "STALLED", State.QUEUED, Cause.STALLED),
        (f"{job_id}-3-STALLED", "STALLED", State.FAILED, Cause.STALLED),
        (f"{job_id}-3-FAILED", "FAILED", State.FAILED, Cause.STALLED),
    ] == told(world.store)


def test_a_stall_of_long_ago_is_not_told_again_and_other_moves_are_not_told(store):
    job_id = submit(store).id
    store.recover(store.dispatch(job_id, "n1", 0), "no step", cause=Cause.STALLED)
    store.pause(job_id, "")
    store.resume(job_id)
    store.cancel(job_id, "")
    store.recover(start(store, slot=1), "gone", cause=Cause.NODE_LOST)

    assert ["STALLED", "CANCELLED"] == [event for _, event, _, _ in told(store)]


def test_a_reader_goes_on_where_it_was_and_one_that_is_new_begins_at_the_end(store):
    assert "" == store.last_notice()
    for _ in range(5):
        store.cancel(submit(store).id, "")
    places = [place for place, _ in store.notices(after="", limit=100)]

    assert places[-1] == store.last_notice()
    assert places[2:4] == [place for place, _ in store.notices(after=places[1], limit=2)]
    assert [] == store.notices(after=places[-1], limit=2)
    assert [places[1], places[4]] == [place for place, _ in store.notices_at({places[4], places[1]})]
    assert [] == store.notices_at(())
    assert store.bookmark("mail") is None
    store.write_bookmark("mail", Bookmark(after=places[0], open=frozenset({places[3]})))
    assert Bookmark(after=places[0], open=frozenset({places[3]})) == store.bookmark("mail")
    assert store.bookmark("chat") is None


def test_a_notice_tells_the_times_and_nothing_of_the_spec(world):
    assignment = start(world.store)
    began = world.clock.now
    world.clock.advance(minutes=5)
    world.store.finish(assignment, State.SUCCEEDED, reason="")
    ((_, notice),) = world.store.notices(after="", limit=10)

    assert (began, began, began + timedelta(minutes=5)) == (notice.create_time, notice.start_time, notice.end_time)
    assert notice.end_time == notice.time
    assert b"resnet50" not in to_json(notice)
    assert notice == from_json(to_json(notice).replace(b"{", b'{"newer": 1, ', 1))


@pytest.mark.parametrize("wrong", [b"", b"[]", b"{}", b"1", b'{"state": "LOST"}', b"[" * 100_000])
def test_what_is_no_notice_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        from_json(wrong)


def test_a_ledger_whose_notices_nobody_reads_stays_bounded(redis_client):
    store = RedisStore(redis_client)
    store.cancel(submit(store).id, "")
    ((_, notice),) = store.notices(after="", limit=1)
    with redis_client.pipeline(transaction=False) as pipeline:
        for _ in range(11_000):
            pipeline.xadd("podium:notices", {"d": to_json(notice)})
        pipeline.execute()
    store.cancel(submit(store).id, "")

    # Redis trims by the hundred.
    assert 10_000 <= redis_client.xlen("podium:notices") <= 10_100
