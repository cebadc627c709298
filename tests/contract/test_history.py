"""The history of ended jobs: it moves into the artifact store, and readers see no difference.

Above 400 lines, as each of what reads a history is held to the same, before and after.
"""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podium.api.v1.event_pb2 import JobEvent
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import DataLossError, FailedPreconditionError, NotFoundError, OutOfRangeError, UnavailableError
from podium.jobs.events import LogBatch, LogLine, MetricBatch, merge_metrics
from podium.jobs.job import Checkpoint, Progress
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Archive, JobStore, MemoryStore, NewJob, StoredEvent
from podium.jobs.store.redis import RedisStore
from tests.contract.plays import lines_of

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def submit(store: JobStore) -> str:
    return store.create(NewJob(project="default", spec=SPEC, classes=("cat", "dog")))[0].id


def ended(store: JobStore, points: int = 8) -> str:
    """A job of two attempts, whose points overlap, that has succeeded."""
    job_id = submit(store)
    for start in (0, points // 2):
        assignment = store.dispatch(job_id, "n1", 0)
        store.begin(assignment, resumed_from_step=start)
        for batch in range(1, points // 2 + 1):
            step = start + batch
            points_at = MetricBatch.at(step, {"loss": 1 / step, "top5": float("nan")})
            lines = LogBatch(lines=(LogLine(text=f"line {step}"),))
            store.append(assignment, batch, [points_at, Progress(phase="p", step=step), lines])
        checkpoint = Checkpoint(id=f"{job_id}-{start}", job_id=job_id, attempt=1, step=step, best=True)
        store.commit_checkpoint(assignment, checkpoint)
        if not start:
            store.recover(assignment, "lost")
    store.finish(assignment, State.SUCCEEDED, reason="done")
    return job_id


def everything(store: JobStore, job_id: str) -> object:
    """All that readers can learn of a job, from every place in its history."""
    last = store.get(job_id).sequence
    pages = [answer(partial(store.events, job_id, after=after, limit=7)) for after in range(-1, last + 2)]
    whole = answer(partial(store.events, job_id, after=0))
    logs = [answer(partial(lines_of, store, job_id, offset, limit=2)) for offset in (None, 5)]
    return store.get(job_id), whole, pages, logs, repr(list(store.metrics(job_id))), store.checkpoints(job_id)


def answer(call: Callable[[], object]) -> object:
    try:
        return call()
    except OutOfRangeError as error:
        return error.message, error.metadata


def files(world: Any) -> list[Path]:
    return [path for path in Path(world.artifacts.root).rglob("*") if path.is_file()]


class TestArchive:
    def test_readers_see_no_difference(self, world) -> None:
        store = world.store
        job_id, other = ended(store), ended(store)
        before = everything(store, job_id), everything(store, other)
        store.archive(job_id)

        assert before == (everything(store, job_id), everything(store, other))
        assert 1 == len(files(world))

    def test_what_was_trimmed_stays_trimmed_and_its_points_stay(self, world) -> None:
        store = world.trimming
        job_id = ended(store)
        before = everything(store, job_id)
        store.archive(job_id)

        assert before == everything(store, job_id)
        assert 8 == len(merge_metrics(list(store.metrics(job_id)))["loss"])
        with pytest.raises(OutOfRangeError):
            store.events(job_id, after=0)

    def test_a_long_history_comes_back_over_many_blocks(self, world) -> None:
        assignment = world.store.dispatch(submit(world.store), "n1", 0)
        world.store.begin(assignment)
        for batch in range(1, 8):
            lines = [LogBatch(lines=(LogLine(text=f"{batch} {at} " + "x" * 9000),)) for at in range(15)]
            world.store.append(assignment, batch, [*lines, MetricBatch.at(batch, {"loss": 1.0})])
        world.store.finish(assignment, State.FAILED, reason="it did")
        before = everything(world.store, assignment.job_id)
        world.store.archive(assignment.job_id)

        assert before == everything(world.store, assignment.job_id)
        (file,) = files(world)
        assert file.stat().st_size < 100_000

    @pytest.mark.parametrize("end", ["cancelled while it waited", "cancelled by force", "failed too often"])
    def test_every_end_is_an_end(self, world, end: str) -> None:
        store, job_id = world.store, submit(world.store)
        if end != "cancelled while it waited":
            store.begin(store.dispatch(job_id, "n1", 0))
        while end == "failed too often" and not store.get(job_id).terminal:
            for _, assignment, _ in store.holding():
                store.recover(assignment, "lost")
            world.clock.advance(seconds=60)
            if not store.get(job_id).terminal:
                store.dispatch(job_id, "n1", 0)
        if end != "failed too often":
            store.cancel(job_id, "why", force=True)
        world.clock.advance(seconds=1)
        assert [job_id] == list(store.ended(before=world.clock.now, limit=9))
        before = everything(store, job_id)
        store.archive(job_id)

        assert before == everything(store, job_id)
        assert [] == list(store.ended(before=world.clock.now, limit=9))

    def test_who_ended_longest_ago_is_first(self, world) -> None:
        store, ids = world.store, []
        for _ in range(3):
            ids.append(store.cancel(submit(store), "why").id)
            world.clock.advance(seconds=10)
        running = submit(store)

        assert ids == list(store.ended(before=world.clock.now, limit=9))
        assert ids[:2] == list(store.ended(before=world.clock.now, limit=2))
        assert ids[:1] == list(store.ended(before=store.get(ids[1]).end_time, limit=9))
        store.archive(ids[0])
        assert ids[1:] == list(store.ended(before=world.clock.now, limit=9))
        assert not store.get(running).terminal

    def test_only_a_job_that_has_ended_is_archived(self, store) -> None:
        job_id = submit(store)
        with pytest.raises(FailedPreconditionError, match="QUEUED"):
            store.archive(job_id)
        store.dispatch(job_id, "n1", 0)
        with pytest.raises(FailedPreconditionError, match="STARTING"):
            store.archive(job_id)
        with pytest.raises(NotFoundError):
            store.archive("job-none")

    def test_twice_is_as_good_as_once(self, world) -> None:
        job_id = ended(world.store)
        before = everything(world.store, job_id)
        for _ in range(2):
            world.store.archive(job_id)

        assert before == everything(world.store, job_id)
        assert 1 == len(files(world))

    def test_two_at_once_do_no_harm(self, world) -> None:
        job_id = ended(world.store, points=60)
        before = list(world.store.events(job_id, after=0).events), repr(list(world.store.metrics(job_id)))
        gate, failures = threading.Barrier(3), []

        def move() -> None:
            gate.wait()
            try:
                world.store.archive(job_id)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=move) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == failures
        assert before == (list(world.store.events(job_id, after=0).events), repr(list(world.store.metrics(job_id))))
        assert 1 == len(files(world))

    def test_who_is_reading_when_it_moves_misses_nothing(self, world) -> None:
        assignment = world.store.dispatch(submit(world.store), "n1", 0)
        job_id = world.store.begin(assignment).id
        world.store.append(assignment, 1, [MetricBatch.at(step, {"loss": 1.0}) for step in range(1200)])
        world.store.finish(assignment, State.SUCCEEDED, reason="done")
        before = repr(list(world.store.metrics(job_id)))
        reading = world.store.metrics(job_id)
        first = [next(reading) for _ in range(30)]
        world.store.archive(job_id)

        assert before == repr([*first, *reading])

    def test_where_the_storage_refuses_nothing_has_changed(self, world, monkeypatch: pytest.MonkeyPatch) -> None:
        job_id = ended(world.store)
        before = everything(world.store, job_id)
        world.clock.advance(seconds=1)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(ArtifactStore, "settle", staticmethod(full))
        with pytest.raises(OSError, match="No space"):
            world.store.archive(job_id)
        assert before == everything(world.store, job_id)
        assert [] == files(world)
        monkeypatch.undo()
        assert [job_id] == list(world.store.ended(before=world.clock.now, limit=9))
        world.store.archive(job_id)
        assert before == everything(world.store, job_id)

    def test_who_archives_a_job_that_another_leader_archives_meanwhile_leaves_nothing_of_its_own(
        self, world, monkeypatch
    ) -> None:
        store = world.trimming
        job_id = ended(store, points=40)
        before = everything(store, job_id)
        lines_of = store._lines

        def overtaken(job_id: str) -> Any:
            monkeypatch.undo()
            store.archive(job_id)
            return lines_of(job_id)

        monkeypatch.setattr(store, "_lines", overtaken)
        store.archive(job_id)

        assert 1 == len(files(world))
        assert before == everything(store, job_id)

    def test_a_ledger_without_an_archive_says_who_has_one(self, world) -> None:
        job_id = ended(world.store)
        archive, world.store._archive = world.store._archive, None
        with pytest.raises(ValueError, match="archive"):
            world.store.archive(job_id)
        world.store._archive = archive
        world.store.archive(job_id)
        world.store._archive = None

        for read in (lambda: world.store.events(job_id, after=0), lambda: list(world.store.metrics(job_id))):
            with pytest.raises(OutOfRangeError, match="ask the server"):
                read()
        assert world.store.get(job_id).state is State.SUCCEEDED


class TestDamage:
    def reads(self, store: JobStore, job_id: str) -> list[Callable[[], object]]:
        return [lambda: store.events(job_id, after=0), lambda: list(store.metrics(job_id))]

    def test_a_missing_history_is_said_to_be_missing(self, world) -> None:
        job_id = ended(world.store)
        world.store.archive(job_id)
        files(world)[0].unlink()

        for read in self.reads(world.store, job_id):
            with pytest.raises(
                DataLossError, match=r"is missing.*restore jobs/.*/history/.*zip from a backup"
            ) as caught:
                read()
            assert ("HISTORY_LOST", {"job_id": job_id}) == (caught.value.reason, caught.value.metadata)
        assert 2 == len(world.store.checkpoints(job_id))

    @pytest.mark.parametrize(
        "read",
        [
            lambda store, job_id: store.events(job_id, after=0),
            lambda store, job_id: store.log(job_id),
            lambda store, job_id: list(store.metrics(job_id)),
            lambda store, job_id: list(store.point_rows(job_id)),
        ],
        ids=["events", "log", "metrics", "point rows"],
    )
    def test_of_a_job_that_is_deleted_before_its_history_is_opened_nothing_is_lost_there_is_none(
        self, world, monkeypatch, read
    ) -> None:
        job_id = ended(world.store)
        world.store.archive(job_id)
        path_of = ArtifactStore.history_path

        def deleted_meanwhile(artifacts: ArtifactStore, *of: str) -> Path:
            world.store.delete(job_id)
            world.artifacts.remove_job(job_id)
            return path_of(artifacts, *of)

        monkeypatch.setattr(ArtifactStore, "history_path", deleted_meanwhile)
        with pytest.raises(NotFoundError) as caught:
            read(world.store, job_id)
        assert "JOB_NOT_FOUND" == caught.value.reason

    def test_a_storage_that_is_away_is_unavailable(self, world) -> None:
        job_id = ended(world.store)
        world.store.archive(job_id)
        (file,) = files(world)
        file.unlink()
        file.mkdir()

        for read in self.reads(world.store, job_id):
            with pytest.raises(UnavailableError, match="try again"):
                read()

    @pytest.mark.parametrize("how", ["cut", "empty", "another job's"])
    def test_a_history_that_is_not_the_one_is_damaged(self, world, how: str) -> None:
        job_id, other = ended(world.store), ended(world.store, points=30)
        for one in (other, job_id):
            world.store.archive(one)
        (file,) = (path for path in files(world) if job_id in path.parts)
        (wrong,) = (path for path in files(world) if other in path.parts)
        data = file.read_bytes()
        file.write_bytes(
            {"cut": data[:-50], "empty": b"", "another job's": wrong.read_bytes(), "longer": data * 2}[how]
        )

        for read in self.reads(world.store, job_id):
            with pytest.raises(DataLossError, match="is damaged"):
                read()


def event_of(text: str) -> bytes:
    """The bytes of an event that says something."""
    return JobEvent(job_id=text).SerializeToString()


ROWS = st.lists(st.text(max_size=60).map(event_of), min_size=1, max_size=30)


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(rows=ROWS, first=st.integers(1, 2**60), after=st.integers(0, 40), limit=st.integers(1, 40))
def test_every_page_holds_the_very_bytes(
    artifacts: ArtifactStore, rows: list[bytes], first: int, after: int, limit: int
) -> None:
    archive = Archive(artifacts)
    events = tuple(StoredEvent(sequence=first + at, data=data) for at, data in enumerate(rows))
    last = events[-1].sequence
    digest = archive.write("job-a", oldest=first, last=last, rows=events)
    page = archive.page("job-a", digest, after=first - 1 + after, limit=limit)

    assert digest == archive.write("job-a", oldest=first, last=last, rows=events)
    assert events[after:][:limit] == page.events
    assert (first, last) == (page.oldest_sequence, page.last_sequence)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_a_changed_byte_is_found_or_changes_nothing(artifacts: ArtifactStore, data: st.DataObject) -> None:
    archive = Archive(artifacts)
    events = tuple(StoredEvent(sequence=at, data=event_of(f"{at}" * at)) for at in range(1, 20))
    digest = archive.write("job-a", oldest=1, last=19, rows=events)
    path = artifacts.history_path("job-a", digest)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    try:
        page = archive.page("job-a", digest, after=0, limit=99)
    except DataLossError:
        return
    assert events == page.events


@pytest.mark.parametrize("sequences", [(1, 2, 4), (2, 3, 4), (1, 2, 3), (1, 3, 2, 4), (1, 2, 2, 3, 4), ()])
def test_a_history_with_a_gap_is_not_kept(artifacts: ArtifactStore, sequences: tuple[int, ...]) -> None:
    rows = [StoredEvent(sequence=sequence, data=event_of("x")) for sequence in sequences]
    with pytest.raises(ValueError, match="event"):
        Archive(artifacts).write("job-a", oldest=1, last=4, rows=rows)
    assert [] == [path for path in artifacts.root.rglob("*") if path.is_file()]


class TestInRedis:
    def test_a_finished_job_leaves_its_record_its_checkpoints_and_no_more(self, redis_client, tmp_path: Path) -> None:
        store = RedisStore(redis_client, archive=Archive(ArtifactStore(str(tmp_path))))
        job_id = ended(store)
        store.archive(job_id)

        keys = {key.decode() for key in redis_client.keys("*") if job_id.encode() in key}
        mine = f"podium:job:{job_id}"
        points_to = {f"podium:checkpoint:{job_id}-{step}" for step in (0, 4)}
        assert {mine, f"{mine}:checkpoints", *points_to} == keys
        assert 0 == redis_client.zcard("podium:ended")

    def test_ten_thousand_points_cost_less_than_64_kib_when_they_are_archived(
        self, redis_client, tmp_path: Path
    ) -> None:
        store = RedisStore(redis_client, archive=Archive(ArtifactStore(str(tmp_path))))
        assignment = store.dispatch(submit(store), "n1", 0)
        store.begin(assignment)
        for batch in range(1, 11):
            steps = range(batch * 500, batch * 500 + 500)
            store.append(assignment, batch, [MetricBatch.at(step, {"loss": 1 / step, "top5": 0.5}) for step in steps])
        store.finish(assignment, State.SUCCEEDED, reason="done")
        store.archive(assignment.job_id)

        keys = redis_client.keys(f"*{assignment.job_id}*")
        assert sum(redis_client.memory_usage(key, samples=0) for key in keys) < 64 << 10
        assert 10_000 == sum(map(len, merge_metrics(list(store.metrics(assignment.job_id))).values()))

    def test_points_of_an_older_version_are_read_and_archived(self, redis_client, tmp_path: Path) -> None:
        store = RedisStore(redis_client, archive=Archive(ArtifactStore(str(tmp_path))))
        job_id = ended(store)
        before = everything(store, job_id)
        mine = f"podium:job:{job_id}"
        whole = {event.sequence: event.data for event in store.events(job_id, after=0).events}
        points = redis_client.xrange(f"{mine}:metrics")
        redis_client.delete(f"{mine}:events", f"{mine}:metrics")
        for sequence, data in whole.items():
            redis_client.xadd(f"{mine}:events", {"d": data}, id=f"{sequence}-0")
        for (row, _), (attempt, batch) in zip(points, points_as_they_were(whole), strict=True):
            redis_client.xadd(f"{mine}:metrics", {"a": attempt, "d": batch}, id=row)

        assert before == everything(store, job_id)
        rows = read(store, job_id)
        store.archive(job_id)
        assert before == everything(store, job_id)
        assert rows == read(store, job_id) != []


def read(store: RedisStore, job_id: str) -> list[bytes]:
    """The points in the rows, each as the bytes of its event's metrics."""
    events = (JobEvent.FromString(row) for page in store.point_rows(job_id) for row in page)
    return [event.metrics.SerializeToString() for event in events if event.HasField("metrics")]


def points_as_they_were(events: dict[int, bytes]) -> list[tuple[int, bytes]]:
    parsed = map(JobEvent.FromString, events.values())
    return [(event.attempt, event.metrics.SerializeToString()) for event in parsed if event.HasField("metrics")]


def test_a_ledger_in_memory_needs_no_archive_to_keep_its_history() -> None:
    store = MemoryStore()
    assert 8 == len(list(store.metrics(ended(store))))
