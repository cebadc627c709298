"""Deleting ended jobs and their checkpoints, in both ledgers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from podium.jobs import wire
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import FailedPreconditionError, NotFoundError, StaleFenceError
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.spec import Weights
from podium.jobs.states import State
from podium.jobs.store import Archive, JobStore, NewJob
from podium.jobs.store.redis import RedisStore
from tests.contract.plays import SPEC, checkpoint_of, history, race, start, submit


def ended(store: JobStore, *, name: str = "a", request_id: str = "") -> str:
    """A job that has succeeded, with events, metrics, lines and a checkpoint ckpt-NAME."""
    new = NewJob(project="default", spec=SPEC, classes=("cat", "dog"), request_id=request_id)
    assignment = store.dispatch(store.create(new)[0].id, "n1", 0)
    store.begin(assignment)
    store.append(assignment, 1, [MetricBatch.at(1, {"loss": 1.0}), LogBatch(lines=(LogLine(text="line"),))])
    store.commit_checkpoint(assignment, checkpoint_of(assignment, name, 1))
    store.finish(assignment, State.SUCCEEDED, reason="done")
    return assignment.job_id


def successor(store: JobStore, name: str = "a") -> str:
    """A new job that starts from ckpt-NAME."""
    return submit(store, weights=Weights(checkpoint=f"ckpt-{name}")).id


def reads(store: JobStore, job_id: str) -> list[Callable[[], object]]:
    return [
        lambda: store.get(job_id),
        lambda: store.events(job_id, after=0),
        lambda: list(store.metrics(job_id)),
        lambda: store.checkpoints(job_id),
        lambda: store.cancel(job_id, "why"),
        lambda: store.archive(job_id),
        lambda: store.delete(job_id),
    ]


class TestAJob:
    @pytest.mark.parametrize("archived", [False, True])
    def test_that_is_deleted_is_seen_by_nobody(self, world, archived: bool) -> None:
        store = world.store
        job_id, other = ended(store), submit(store).id
        if archived:
            store.archive(job_id)
        store.delete(job_id)
        world.clock.advance(seconds=1)

        for read in reads(store, job_id):
            with pytest.raises(NotFoundError) as caught:
                read()
            assert ("JOB_NOT_FOUND", {"job_id": job_id}) == (caught.value.reason, caught.value.metadata)
        with pytest.raises(NotFoundError) as caught:
            store.checkpoint("ckpt-a")
        assert "CHECKPOINT_NOT_FOUND" == caught.value.reason
        assert [other] == [job.id for job in store.list(project="default")[0]]
        assert [] == list(store.known([job_id])) == list(store.ended(before=world.clock.now, limit=9))

    @pytest.mark.parametrize("change", ["cancel", "pause", "resume"])
    def test_that_is_deleted_while_somebody_changes_it_is_not_found(self, world, monkeypatch, change: str) -> None:
        store, look = world.store, world.store._known
        job_id = ended(store)

        def look_and_lose(job_id: str) -> object:
            found = look(job_id)
            monkeypatch.undo()
            store.delete(job_id)
            return found

        monkeypatch.setattr(store, "_known", look_and_lose)
        with pytest.raises(NotFoundError) as caught:
            getattr(store, change)(job_id, *(["why"] if change != "resume" else []))
        assert "JOB_NOT_FOUND" == caught.value.reason

    def test_stands_on_the_list_of_deletions_until_that_is_concluded(self, world) -> None:
        first, second = ended(world.store), ended(world.store, name="b")
        for job_id in (second, first):
            world.store.delete(job_id)
            world.clock.advance(seconds=1)

        oldest, newest = world.store.deletions()
        assert [(second, ""), (first, "")] == [(one.job_id, one.checkpoint_id) for one in (oldest, newest)]
        assert 2 == (world.clock.now - oldest.time).total_seconds()
        for _ in range(2):
            world.store.conclude(oldest)
        assert [newest] == list(world.store.deletions())

    def test_keeps_its_request_id_used(self, store: JobStore) -> None:
        store.delete(ended(store, request_id="r1"))

        new = NewJob(project="default", spec=SPEC, classes=("cat", "dog"), request_id="r1")
        for ask in (lambda: store.create(new), lambda: store.replayed("default", "r1", wire.digest(SPEC))):
            with pytest.raises(NotFoundError, match="deleted; make a new request_id"):
                ask()
        assert ([], "") == store.list(project="default")

    def test_that_has_not_ended_stays(self, store: JobStore) -> None:
        queued, running = submit(store).id, start(store).job_id
        for job_id, state in ((queued, "QUEUED"), (running, "RUNNING")):
            with pytest.raises(FailedPreconditionError, match=f"is {state}; cancel it"):
                store.delete(job_id)
            assert state == store.get(job_id).state.name
        assert [] == list(store.deletions())

    def test_is_deleted_once_however_many_ask(self, store: JobStore) -> None:
        job_id = ended(store)
        answers = race([lambda: store.delete(job_id)] * 4)

        assert [None] == [answer for answer in answers if answer is None]
        assert 3 == len([answer for answer in answers if isinstance(answer, NotFoundError)])
        assert 1 == len(store.deletions())

    def test_that_was_deleted_takes_nothing_from_an_attempt_that_was_ended_by_force(self, store: JobStore) -> None:
        mine = start(store)
        store.cancel(mine.job_id, "why", force=True)
        store.delete(mine.job_id)

        writes: list[Callable[[], object]] = [
            lambda: store.append(mine, 1, [MetricBatch.at(1, {"loss": 1.0})]),
            lambda: store.commit_checkpoint(mine, checkpoint_of(mine, "late", 1)),
            lambda: store.renew(mine),
            lambda: store.finish(mine, State.SUCCEEDED, reason="done"),
        ]
        for write in writes:
            with pytest.raises(StaleFenceError):
                write()
        with pytest.raises(NotFoundError):
            store.checkpoint("ckpt-late")
        assert ([], "") == store.list(project="default")

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_that_is_deleted_while_it_is_archived_does_not_come_back(
        self, world, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        store, write = world.store, Archive.write
        job_id = ended(store)

        def while_it_writes(archive: Archive, *arguments: Any, **others: Any) -> str:
            if when == "before":
                store.delete(job_id)
            digest = write(archive, *arguments, **others)
            if when == "after":
                store.delete(job_id)
            return digest

        monkeypatch.setattr(Archive, "write", while_it_writes)
        with pytest.raises(NotFoundError):
            store.archive(job_id)
        for read in reads(store, job_id):
            with pytest.raises(NotFoundError):
                read()

    def test_rings_the_bell_so_that_watchers_learn_of_it(self, store: JobStore) -> None:
        job_id = ended(store)
        with store.bell() as bell:
            store.delete(job_id)
            assert {job_id} == bell.wait(10)


class TestProtection:
    @pytest.mark.parametrize("state", ["QUEUED", "PAUSED", "RUNNING", "CANCELLING"])
    def test_a_job_that_has_not_ended_protects_what_it_starts_from(self, store: JobStore, state: str) -> None:
        job_id = ended(store)
        user = successor(store)
        if state == "PAUSED":
            store.pause(user, "why")
        elif state != "QUEUED":
            store.begin(store.dispatch(user, "n1", 1))
        if state == "CANCELLING":
            store.cancel(user, "why")

        deletes: list[Callable[[], object]] = [
            lambda: store.delete(job_id),
            lambda: store.delete_checkpoint("ckpt-a"),
        ]
        for delete in deletes:
            with pytest.raises(FailedPreconditionError, match=f"{user} is {state} and starts from ckpt-a") as caught:
                delete()
            assert ("IN_USE", user) == (caught.value.reason, caught.value.metadata["job_id"])
        assert "ckpt-a" == store.checkpoint("ckpt-a").id

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
    def test_with_its_end_the_protection_ends(self, store: JobStore, end: State) -> None:
        job_id = ended(store)
        for slot in (1, 2):
            assignment = store.dispatch(successor(store), "n1", slot)
            store.begin(assignment)
            store.finish(assignment, end, reason="over")
        store.delete(job_id)

        assert [job_id] == [one.job_id for one in store.deletions()]

    def test_one_of_two_that_end_still_protects(self, store: JobStore) -> None:
        job_id = ended(store)
        first, second = successor(store), successor(store)
        store.cancel(first, "why")
        with pytest.raises(FailedPreconditionError, match=second):
            store.delete(job_id)

    def test_other_checkpoints_are_not_protected(self, store: JobStore) -> None:
        ended(store)
        other = ended(store, name="b")
        successor(store)
        store.delete(other)

    def test_a_job_cannot_start_from_what_was_deleted(self, store: JobStore) -> None:
        store.delete(ended(store))
        with pytest.raises(NotFoundError) as caught:
            successor(store)
        assert "CHECKPOINT_NOT_FOUND" == caught.value.reason
        assert ([], "") == store.list(project="default")

    @pytest.mark.parametrize("what", ["job", "checkpoint"])
    def test_of_a_job_and_a_deletion_that_come_at_once_one_is_refused(self, store: JobStore, what: str) -> None:
        for number in range(10):
            name = f"race{number}"
            job_id = ended(store, name=name)
            delete = store.delete if what == "job" else store.delete_checkpoint
            target = job_id if what == "job" else f"ckpt-{name}"
            answers = race([partial(successor, store, name), partial(delete, target)])

            refused = [answer for answer in answers if isinstance(answer, NotFoundError | FailedPreconditionError)]
            assert 1 == len(refused), answers
            created = [answer for answer in answers if isinstance(answer, str)]
            if created:
                assert f"ckpt-{name}" == store.checkpoint(f"ckpt-{name}").id
                store.cancel(created[0], "why")


class TestACheckpoint:
    def test_is_taken_off_the_list_and_the_job_stays(self, world) -> None:
        store = world.store
        mine = start(store)
        for step, name in enumerate("ab"):
            store.commit_checkpoint(mine, checkpoint_of(mine, name, step, best=True))
        store.finish(mine, State.SUCCEEDED, reason="done")
        before = history(store, mine.job_id)
        store.delete_checkpoint("ckpt-b")

        assert [("ckpt-a", False)] == [(one.id, one.best) for one in store.checkpoints(mine.job_id)]
        assert [(mine.job_id, "ckpt-b")] == [(one.job_id, one.checkpoint_id) for one in store.deletions()]
        assert before == history(store, mine.job_id)
        assert State.SUCCEEDED is store.get(mine.job_id).state
        for _ in range(2):
            with pytest.raises(NotFoundError) as caught:
                store.delete_checkpoint("ckpt-b")
            assert "CHECKPOINT_NOT_FOUND" == caught.value.reason

    def test_of_a_job_that_has_not_ended_stays(self, store: JobStore) -> None:
        mine = start(store)
        store.commit_checkpoint(mine, checkpoint_of(mine, "a", 1))
        with pytest.raises(FailedPreconditionError, match="RUNNING"):
            store.delete_checkpoint("ckpt-a")
        assert ["ckpt-a"] == [one.id for one in store.checkpoints(mine.job_id)]

    def test_is_deleted_once_however_many_ask_and_its_job_with_it(self, store: JobStore) -> None:
        job_id = ended(store)
        answers = race([*[lambda: store.delete_checkpoint("ckpt-a")] * 3, lambda: store.delete(job_id)])

        assert all(answer is None or isinstance(answer, NotFoundError) for answer in answers)
        assert {job_id} == {one.job_id for one in store.deletions()}
        with pytest.raises(NotFoundError):
            store.get(job_id)


class TestInRedis:
    @pytest.fixture
    def store(self, redis_client: redis.Redis) -> RedisStore:
        return RedisStore(redis_client)

    def test_nothing_is_left_but_the_deletion_and_the_request_id(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        job_id = ended(store, request_id="r1")
        store.cancel(successor(store), "why")
        assert not redis_client.exists("podium:checkpoint:ckpt-a:starters")
        store.delete(job_id)

        assert [] == [key for key in redis_client.keys("*") if job_id.encode() in key or b"ckpt-a" in key]
        (deletion,) = store.deletions()
        store.conclude(deletion)
        assert not redis_client.exists("podium:deletions")
        assert 1 == redis_client.exists("podium:request:default:r1")

    def test_an_archiver_that_comes_late_brings_no_key_back(
        self, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, write = RedisStore(redis_client, archive=Archive(ArtifactStore(str(tmp_path)))), Archive.write
        job_id = ended(store)

        def while_it_writes(archive: Archive, *arguments: Any, **others: Any) -> str:
            digest = write(archive, *arguments, **others)
            store.delete(job_id)
            return digest

        monkeypatch.setattr(Archive, "write", while_it_writes)
        with pytest.raises(NotFoundError):
            store.archive(job_id)
        assert [] == redis_client.keys(f"*{job_id}*")

    def test_a_job_that_an_older_version_ended_protects_nothing(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        job_id = ended(store)
        user = successor(store)
        store.cancel(user, "why")
        redis_client.sadd("podium:checkpoint:ckpt-a:starters", user, "job-deleted-since")
        store.delete(job_id)

        assert [job_id] == [one.job_id for one in store.deletions()]

    def test_who_reads_metrics_when_it_goes_is_told_so(self, store: RedisStore) -> None:
        mine = start(store)
        store.append(mine, 1, [MetricBatch.at(step, {"loss": 1.0}) for step in range(1200)])
        store.finish(mine, State.SUCCEEDED, reason="done")
        reading = store.metrics(mine.job_id)
        next(reading)
        store.delete(mine.job_id)

        with pytest.raises(NotFoundError):
            list(reading)
