"""What the leader reads of many jobs at once, and the account that it keeps, in every ledger."""

from datetime import UTC, datetime

from podium.jobs.spec import Priority, Resources
from podium.jobs.states import State
from podium.jobs.store import Usage
from tests.contract.plays import start, submit


def test_a_line_is_in_order_and_its_numbers_are_too(store) -> None:
    ids = [submit(store, priority=priority).id for priority in (Priority.LOW, Priority.URGENT, Priority.NORMAL)]
    submit(store, resources=Resources(pool="big"))
    line = list(store.line("default"))

    assert [ids[1], ids[2], ids[0]] == [job_id for job_id, _ in line] == list(store.pending("default"))
    assert sorted(place for _, place in line) == [place for _, place in line]
    assert all(isinstance(place, int) for _, place in line)
    assert [] == list(store.line("none"))


def test_a_number_stays_while_a_job_is_away(store) -> None:
    job_id = submit(store).id
    before = list(store.line("default"))
    store.recover(store.dispatch(job_id, "n1", 0), "lost")

    assert before == list(store.line("default"))


def test_many_jobs_are_read_at_once_in_the_order_asked_for(store) -> None:
    ids = [submit(store).id for _ in range(230)]
    running = start(store).job_id
    asked = [*ids[::-1], "job-none", running]

    assert [*ids[::-1], running] == [job.id for job in store.known(asked)]
    assert [store.get(running)] == list(store.known([running]))
    assert [None] == [job.queue for job in store.known(ids[:1])]
    assert [] == list(store.known([]))
    assert [State.QUEUED] * 3 == [job.state for job in store.known(ids[:3])]


class TestUsage:
    def test_an_account_comes_back_as_it_was_written(self, store) -> None:
        assert store.usage() is None
        usage = Usage(
            time=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            seconds={("default", "a"): 0.1 + 0.2, ("default", "b"): 1e12, ("big", "a"): 0.0},
        )
        store.write_usage(usage)

        assert usage == store.usage()

    def test_the_next_one_replaces_it_whole(self, store) -> None:
        store.write_usage(Usage(time=datetime(2026, 1, 1, tzinfo=UTC), seconds={("default", "a"): 1.0}))
        empty = Usage(time=datetime(2026, 1, 2, tzinfo=UTC))
        store.write_usage(empty)

        assert empty == store.usage()

    def test_names_may_hold_what_they_like(self, store) -> None:
        usage = Usage(
            time=datetime(2026, 1, 1, tzinfo=UTC),
            seconds={
                ("a pool", "a project"): 1.0,
                ("time", ""): 2.0,
                ("ä:*", 'x"y'): 3.0,
                ("a", "pool a project"): 4.0,
            },
        )
        store.write_usage(usage)

        assert usage == store.usage()
