"""The hub and its watches, on an event loop, over the ledger in memory."""

import asyncio
from contextlib import contextmanager

import pytest

from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.job_service_pb2 import WatchJobResponse
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import UnavailableError
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Softmax
from podium.jobs.states import State
from podium.jobs.store import Archive, Assignment, Bell, MemoryStore, NewJob
from podium.server.watch import Hub, Watches
from podium.server.watch._frames import Frame
from podium.server.watch._subscription import Subscription

SPEC = JobSpec(backbone="x", tuning=FullFineTuning(), dataset=ImageFolder(train="/x"), sorter=Softmax(), m=2)


def running(store: MemoryStore) -> Assignment:
    job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))
    assignment = store.dispatch(job.id, "n", 0)
    store.begin(assignment)
    return assignment


async def watching(store: MemoryStore, hub: Hub, job_id: str, after: int = 0):
    async for data in Watches(store, hub, keepalive=0.05).watch({job_id: after}, store.get):
        yield WatchJobResponse.FromString(data).event


async def sequences(events) -> list[int]:
    return [event.sequence async for event in events if event.sequence]


def test_a_watcher_that_falls_behind_reads_on_from_the_ledger_and_misses_nothing():
    async def scenario() -> tuple[list[int], int]:
        store = MemoryStore()
        hub = Hub(store, queue=2000, look=0.05)
        hub.start()
        assignment = running(store)
        slow = watching(store, hub, assignment.job_id)
        while (await anext(slow)).WhichOneof("payload") != "keepalive":
            pass
        for batch in range(1, 101):  # while nobody reads, and more than may wait
            store.append(assignment, batch, [LogBatch(lines=(LogLine(text="x" * 200),))])
        last = store.get(assignment.job_id).sequence
        quick = hub.subscribe()
        while not hub.join(assignment.job_id, last, quick):
            await asyncio.sleep(0.01)
        hub.leave(quick)
        store.finish(assignment, State.SUCCEEDED, reason="done")
        rest = await sequences(slow)
        await hub.stop()
        return rest, last

    rest, last = asyncio.run(scenario())

    assert list(range(4, last + 2)) == rest


def test_the_ledger_is_read_once_for_all_watchers():
    class Counting(MemoryStore):
        reads = 0

        def events(self, job_id, *, after, limit=1000):
            self.reads += 1
            return super().events(job_id, after=after, limit=limit)

        def news(self, after, *, limit):
            self.reads += 1
            return super().news(after, limit=limit)

    async def scenario() -> tuple[int, list[list[int]]]:
        store = Counting()
        hub = Hub(store, look=60)
        hub.start()
        assignment = running(store)
        watches = [watching(store, hub, assignment.job_id) for _ in range(40)]
        for events in watches:
            while (await anext(events)).WhichOneof("payload") != "keepalive":
                pass
        store.reads = 0
        store.append(assignment, 1, [MetricBatch.at(1, {"loss": 1.0})])
        store.finish(assignment, State.SUCCEEDED, reason="done")
        seen = await asyncio.gather(*map(sequences, watches))
        await hub.stop()
        return store.reads, list(seen)

    reads, seen = asyncio.run(scenario())

    assert [[4, 5]] * 40 == seen
    assert reads <= 6


def test_draining_ends_watches_and_refuses_new_ones():
    async def scenario() -> None:
        store = MemoryStore()
        hub = Hub(store)
        hub.start()
        assignment = running(store)
        old = watching(store, hub, assignment.job_id)
        while (await anext(old)).WhichOneof("payload") != "keepalive":
            pass
        hub.drain()
        for events in (old, watching(store, hub, assignment.job_id)):
            with pytest.raises(UnavailableError, match="watch again"):
                await sequences(events)
        await hub.stop()

    asyncio.run(scenario())


def test_watches_end_when_the_ledger_stays_away():
    class Gone(MemoryStore):
        gone = False

        @contextmanager
        def bell(self):
            if self.gone:
                raise UnavailableError("no ledger")
            with super().bell() as bell:
                yield Dying(self, bell)

    class Dying:
        def __init__(self, store: "Gone", bell: Bell) -> None:
            self._store, self._bell = store, bell

        def wait(self, timeout: float) -> frozenset[str]:
            if self._store.gone:
                raise UnavailableError("no ledger")
            return self._bell.wait(timeout)

    async def scenario() -> None:
        store = Gone()
        hub = Hub(store, look=0.05, patience=0.5)
        hub.start()
        assignment = running(store)
        events = watching(store, hub, assignment.job_id)
        await anext(events)
        store.gone = True
        with pytest.raises(UnavailableError, match="no ledger"):
            async for _ in events:
                pass
        await hub.stop()

    asyncio.run(scenario())


def test_what_was_queued_before_the_end_is_still_sent():
    event = Frame("job-1", 1, 0.0, b"event", False)

    async def scenario() -> list[Frame] | None:
        subscription = Subscription(1000)
        subscription.offer([event])
        subscription.end(UnavailableError("over"))
        taken = await subscription.take(1)
        with pytest.raises(UnavailableError):
            await subscription.take(1)
        return taken

    assert [event] == asyncio.run(scenario())


def test_a_job_whose_history_has_moved_is_watched_from_any_place_as_before(tmp_path):
    store = MemoryStore(archive=Archive(ArtifactStore(str(tmp_path))))
    assignment = running(store)
    for batch in range(1, 41):
        store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0}), LogBatch(lines=(LogLine(text="x"),))])
    job = store.finish(assignment, State.SUCCEEDED, reason="done")

    async def everything(after: int) -> list[JobEvent]:
        watches = Watches(store, Hub(store), page=10)
        events = [WatchJobResponse.FromString(data).event async for data in watches.watch({job.id: after}, store.get)]
        return [event for event in events if event.sequence]

    async def watched() -> list[list[JobEvent]]:
        return [await everything(after) for after in (0, 1, 37, job.sequence - 1, job.sequence)]

    before = asyncio.run(watched())
    store.archive(job.id)

    assert before == asyncio.run(watched())
    assert [job.sequence, job.sequence - 1, job.sequence - 37, 1, 0] == list(map(len, before))
