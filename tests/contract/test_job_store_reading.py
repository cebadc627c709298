"""What a job leaves behind in every ledger, and how it is read: podium.jobs.store._base, sentence by sentence."""

import random
import threading
from dataclasses import replace

import pytest

from podium.api.v1 import job_pb2
from podium.jobs.errors import (
    NotFoundError,
    OutOfRangeError,
)
from podium.jobs.events import LogBatch, LogLine, MetricBatch, merge_metrics
from podium.jobs.job import Checkpoint, Progress
from podium.jobs.states import State
from podium.jobs.store import NewJob
from tests.contract.plays import SPEC, checkpoint_of, everything, history, start, submit


class TestAppend:
    def test_events_are_numbered_in_order_without_gaps(self, world) -> None:
        store = world.store
        assignment = start(store)
        points = MetricBatch.at(1, {"loss": 0.5, "top5": float("inf")})
        lines = LogBatch(lines=(LogLine(text="hello", time=world.clock.now),))
        progress = Progress(phase="training", step=1, total_steps=10, fraction=0.1, eta_seconds=3.5)

        assert store.append(assignment, 1, [points, lines]) == 5
        assert store.append(assignment, 2, [progress]) == 6
        events = history(store, assignment.job_id)
        assert list(range(1, 7)) == [event.sequence for event in events]
        assert [points, lines, progress] == [event.payload for event in events[3:]]
        assert {(assignment.job_id, 1, world.clock.now)} == {
            (event.job_id, event.attempt, event.time) for event in events[3:]
        }
        assert store.get(assignment.job_id).sequence == 6

    def test_the_last_progress_becomes_the_jobs(self, store) -> None:
        assignment = start(store)
        store.append(assignment, 1, [Progress(phase="features", step=1), Progress(phase="training", step=2)])
        store.append(assignment, 2, [MetricBatch.at(3, {"loss": 1.0})])

        assert Progress(phase="training", step=2) == store.get(assignment.job_id).progress

    def test_a_batch_that_was_written_is_not_written_again(self, store) -> None:
        assignment = start(store)
        for batch in (1, 1, 2, 1, 2):
            last = store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0})])

        assert last == 5
        assert [1, 2] == [points.series[0].steps[0] for _, points in store.metrics(assignment.job_id)]

    def test_every_attempt_counts_its_batches_from_1(self, store) -> None:
        first = start(store)
        store.append(first, 7, [MetricBatch.at(10, {"loss": 1.0}), MetricBatch.at(20, {"loss": 2.0})])
        store.recover(first, "lost")
        second = store.dispatch(first.job_id, "n1", 0)
        store.begin(second)
        store.append(second, 1, [MetricBatch.at(20, {"loss": 3.0})])

        written = list(store.metrics(first.job_id))
        assert [1, 1, 2] == [attempt for attempt, _ in written]
        assert {"loss": {10: 1.0, 20: 3.0}} == merge_metrics(written)

    def test_metrics_come_back_over_many_pages(self, store) -> None:
        assignment = start(store)
        for batch in range(1, 4):
            store.append(assignment, batch, [MetricBatch.at(batch * 1000 + i, {"loss": 1.0}) for i in range(400)])

        steps = [points.series[0].steps[0] for _, points in store.metrics(assignment.job_id)]
        assert [batch * 1000 + i for batch in range(1, 4) for i in range(400)] == steps


class TestCheckpoints:
    def test_they_are_listed_by_step_and_found_by_id(self, world) -> None:
        assignment = start(world.store)
        for name, step in (("b", 20), ("a", 30), ("c", 10)):
            world.store.commit_checkpoint(assignment, checkpoint_of(assignment, name, step))
        listed = world.store.checkpoints(assignment.job_id)

        assert [10, 20, 30] == [checkpoint.step for checkpoint in listed]
        assert listed[0] == world.store.checkpoint("ckpt-c")
        assert listed[0] == replace(checkpoint_of(assignment, "c", 10), create_time=world.clock.now)
        assert [20, 30, 10] == [
            event.payload.step
            for event in history(world.store, assignment.job_id)
            if isinstance(event.payload, Checkpoint)
        ]

    def test_one_at_most_is_the_best(self, store) -> None:
        assignment = start(store)
        for step, best in ((1, True), (2, True), (3, False)):
            store.commit_checkpoint(assignment, checkpoint_of(assignment, f"{step}", step, best=best))

        assert [False, True, False] == [checkpoint.best for checkpoint in store.checkpoints(assignment.job_id)]
        assert not store.checkpoint("ckpt-1").best
        assert store.checkpoint("ckpt-2").best

    def test_registering_one_again_changes_nothing(self, store) -> None:
        assignment = start(store)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1))
        before = everything(store, assignment.job_id)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1, best=True))

        assert before == everything(store, assignment.job_id)

    def test_a_forgotten_one_is_gone(self, store) -> None:
        assignment = start(store)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1))
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "b", 2))
        for _ in range(2):
            store.forget_checkpoint(assignment, "ckpt-a")

        assert ["ckpt-b"] == [checkpoint.id for checkpoint in store.checkpoints(assignment.job_id)]
        with pytest.raises(NotFoundError) as caught:
            store.checkpoint("ckpt-a")
        assert caught.value.reason == "CHECKPOINT_NOT_FOUND"

    def test_they_outlive_the_job(self, store) -> None:
        assignment = start(store)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1, best=True))
        store.finish(assignment, State.SUCCEEDED, reason="done")

        assert store.checkpoint("ckpt-a").best


class TestEvents:
    def test_a_page_begins_after_what_was_seen(self, store) -> None:
        assignment = start(store)
        store.append(assignment, 1, [Progress(phase="training", step=step) for step in range(5)])
        page = store.events(assignment.job_id, after=3, limit=2)

        assert [4, 5] == [event.sequence for event in page.events]
        assert (page.oldest_sequence, page.last_sequence) == (1, 8)
        assert () == store.events(assignment.job_id, after=8).events

    @pytest.mark.parametrize("after", [-1, 4, 1000])
    def test_a_place_that_is_not_in_the_history_is_out_of_range(self, store, after: int) -> None:
        with pytest.raises(OutOfRangeError):
            store.events(start(store).job_id, after=after)

    def test_trimmed_events_are_out_of_range_and_the_oldest_kept_is_named(self, world) -> None:
        store = world.trimming
        assignment = start(store)
        store.append(assignment, 1, [Progress(phase="training", step=step) for step in range(9)])

        with pytest.raises(OutOfRangeError) as caught:
            store.events(assignment.job_id, after=6)
        assert caught.value.metadata["oldest_sequence"] == "8"
        page = store.events(assignment.job_id, after=7)
        assert (page.oldest_sequence, page.last_sequence) == (8, 12)
        assert [8, 9, 10, 11, 12] == [event.sequence for event in page.events]

    def test_metrics_are_never_trimmed(self, world) -> None:
        assignment = start(world.trimming)
        for batch in range(1, 12):
            world.trimming.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0})])

        assert 11 == len(list(world.trimming.metrics(assignment.job_id)))


class TestBell:
    def test_it_rings_for_every_job_with_new_events(self, store) -> None:
        before = submit(store).id
        with store.bell() as bell:
            first, second = submit(store).id, submit(store).id
            rang: frozenset[str] = frozenset()
            while not {first, second} <= rang:
                rung = bell.wait(5)
                assert rung
                rang |= rung

            assert before not in rang
            store.cancel(before, "why")
            assert {before} == bell.wait(5)
            assert frozenset() == bell.wait(0.05)

    def test_it_does_not_ring_for_a_creation_that_is_repeated(self, store) -> None:
        new = NewJob(project="default", spec=SPEC, classes=(), id="job-repeated")
        store.create(new)
        with store.bell() as bell:
            store.create(new)
            other = submit(store).id
            assert {other} == bell.wait(5)

    def test_it_wakes_who_waits(self, store) -> None:
        with store.bell() as bell:
            writer = threading.Timer(0.05, submit, (store,))
            writer.start()
            assert 1 == len(bell.wait(30))
            writer.join()


class TestList:
    def test_jobs_come_newest_first_page_by_page(self, store) -> None:
        ids = [submit(store).id for _ in range(5)]
        store.create(NewJob(project="other", spec=SPEC, classes=()))
        pages: list[list[str]] = []
        cursor = ""
        while not pages or cursor:
            jobs, cursor = store.list(project="default", cursor=cursor, limit=2)
            pages.append([job.id for job in jobs])

        assert [ids[:2:-1], ids[2:0:-1], ids[:1]] == pages

    def test_jobs_come_oldest_first_where_that_is_asked(self, store) -> None:
        ids = [submit(store).id for _ in range(5)]
        pages: list[list[str]] = []
        cursor = ""
        while not pages or cursor:
            jobs, cursor = store.list(project="default", oldest_first=True, cursor=cursor, limit=2)
            pages.append([job.id for job in jobs])

        assert [ids[:2], ids[2:4], ids[4:]] == pages

    @pytest.mark.parametrize("oldest_first", [False, True])
    def test_while_others_come_and_go_those_that_stay_are_each_listed_once(self, store, oldest_first: bool) -> None:
        dice, made = random.Random(5), [submit(store).id for _ in range(30)]
        stay, go = made[::2], made[1::2]
        seen: list[str] = []
        cursor = ""
        while not seen or cursor:
            jobs, cursor = store.list(project="default", oldest_first=oldest_first, cursor=cursor, limit=4)
            seen += [job.id for job in jobs]
            gone = go.pop(dice.randrange(len(go)))
            store.cancel(gone, "why")
            store.delete(gone)
            # Else a list that begins with the oldest would never end.
            if len(made) < 34:
                made.append(submit(store).id)

        order = stay if oldest_first else stay[::-1]
        assert order == [job_id for job_id in seen if job_id in stay]
        assert len(set(seen)) == len(seen)

    @pytest.mark.parametrize("states", [frozenset(), frozenset({State.QUEUED})])
    def test_only_the_jobs_that_are_wanted_are_listed_as_they_stand(self, store, states: frozenset[State]) -> None:
        ids = [submit(store).id for _ in range(4)]
        store.cancel(ids[1], "why")
        seen: dict[str, int] = {}

        def wanted(job: job_pb2.Job) -> bool:
            seen[job.id] = job.state
            return job.id != ids[2]

        jobs, cursor = store.list(project="default", states=states, wanted=wanted)
        assert ([ids[3], ids[0]] if states else [ids[3], ids[1], ids[0]], "") == ([job.id for job in jobs], cursor)
        assert {ids[0]: 1, ids[2]: 1, ids[3]: 1} | ({} if states else {ids[1]: State.CANCELLED.value}) == seen

    def test_a_full_last_page_has_no_cursor(self, store) -> None:
        submit(store)
        submit(store)

        jobs, cursor = store.list(project="default", limit=2)
        assert (2, "") == (len(jobs), cursor)

    def test_only_the_states_asked_for_are_listed(self, store) -> None:
        running, cancelled = start(store).job_id, store.cancel(submit(store).id, "why").id
        queued = [submit(store).id for _ in range(3)]

        jobs, cursor = store.list(project="default", states=frozenset({State.RUNNING, State.CANCELLED}), limit=1)
        assert [cancelled] == [job.id for job in jobs]
        jobs, cursor = store.list(
            project="default", states=frozenset({State.RUNNING, State.CANCELLED}), limit=1, cursor=cursor
        )
        assert ([running], "") == ([job.id for job in jobs], cursor)
        jobs, _ = store.list(project="default", states=frozenset({State.QUEUED}))
        assert [(queued[2], 3), (queued[1], 2), (queued[0], 1)] == [(job.id, job.queue.position) for job in jobs]

    def test_a_project_without_jobs_is_empty(self, store) -> None:
        assert ([], "") == store.list(project="none")

    @pytest.mark.parametrize("cursor", ["x", "-1", "1 ", "٣", "9" * 40])
    def test_what_is_no_cursor_is_out_of_range(self, store, cursor: str) -> None:
        with pytest.raises(OutOfRangeError):
            store.list(project="default", cursor=cursor)
