"""The hub and its watches, on an event loop, over the ledger in memory.

Above 400 lines, as what a watcher is promised holds for each way to fall behind, and all of them share this stage.
"""

import asyncio
import gc
import itertools
import threading
import weakref
from contextlib import contextmanager
from typing import Any

import pytest

from podium.api.v1.event_pb2 import JobEvent
from podium.api.v1.job_service_pb2 import WatchJobResponse, WatchJobsResponse
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import OutOfRangeError, UnavailableError
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Softmax
from podium.jobs.states import State
from podium.jobs.store import Archive, Assignment, Bell, MemoryStore, NewJob
from podium.server.watch import Hub, Watches
from podium.server.watch._frames import Frame, Page
from podium.server.watch._subscription import Subscription

SPEC = JobSpec(backbone="x", tuning=FullFineTuning(), dataset=ImageFolder(train="/x"), sorter=Softmax(), m=2)


def running(store: MemoryStore, slot: int = 0) -> Assignment:
    job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))
    assignment = store.dispatch(job.id, "n", slot)
    store.begin(assignment)
    return assignment


async def watching(store: MemoryStore, hub: Hub, job_id: str, after: int = 0):
    async for data in Watches(store, hub, store.get, keepalive=0.05).watch({job_id: after}, batched=False):
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


@pytest.mark.parametrize("length", [1, 8000])
def test_who_joins_late_is_given_what_is_kept_or_reads_on_first_and_who_is_further_gets_nothing_twice(length):
    async def scenario() -> list[list[int]]:
        store = MemoryStore()
        hub = Hub(store, look=0.05)
        hub.start()
        assignment = running(store)
        first, ahead = hub.subscribe(), hub.subscribe()
        assert hub.join(assignment.job_id, 3, first)
        line = LogBatch(lines=(LogLine(text="x" * length),))
        store.append(assignment, 1, [line, MetricBatch.at(1, {"loss": 1.0}), line, line])
        got = [frame.sequence for frame in await first.take(10) or ()]
        late, later = hub.subscribe(), hub.subscribe()
        assert hub.join(assignment.job_id, 3, late) == (length == 1)
        assert hub.join(assignment.job_id, 5, later)
        assert hub.join(assignment.job_id, 9, ahead)
        store.append(assignment, 2, [MetricBatch.at(step, {"loss": 1.0}) for step in range(2, 5)])
        got += [frame.sequence for frame in await first.take(10) or ()]
        others = [[frame.sequence for frame in queue.waiting()] for queue in (late, later, ahead)]
        for subscription in (first, late, later, ahead):
            hub.leave(subscription)
        await hub.stop()
        return [got, *others]

    whole = [4, 5, 6, 7, 8, 9, 10]
    assert [whole, whole if length == 1 else [], whole[2:], [10]] == asyncio.run(scenario())


def test_a_watcher_that_has_all_there_is_joins_at_once_and_reads_no_history():
    class Refusing(MemoryStore):
        def events(self, job_id, *, after, limit=1000):
            raise AssertionError("the history is read")

    async def scenario() -> list[int]:
        store = Refusing()
        hub = Hub(store, look=60)
        hub.start()
        assignment = running(store)
        events = watching(store, hub, assignment.job_id, after=3)
        assert (await anext(events)).WhichOneof("payload") == "snapshot"
        store.append(assignment, 1, [MetricBatch.at(1, {"loss": 1.0})])
        store.finish(assignment, State.SUCCEEDED, reason="done")
        seen = await sequences(events)
        await hub.stop()
        return seen

    assert [4, 5] == asyncio.run(scenario())


def test_what_came_before_the_hub_listened_for_a_job_does_not_wait_for_the_next_look():
    async def scenario() -> list[int]:
        store = MemoryStore()
        assignment, other = running(store, 0), running(store, 1)
        rang = threading.Event()
        hub = Hub(store, look=60, rang=rang.set)
        hub.start()
        # With the second ring the hub is done with the first one, and with its first look at everything.
        for one in (assignment, other):
            rang.clear()
            for batch in itertools.count(1):
                store.append(one, batch, [MetricBatch.at(batch, {"loss": 1.0})])
                if rang.wait(0.2):
                    break
        subscription = hub.subscribe()
        assert hub.join(assignment.job_id, 3, subscription)
        got = [frame.sequence for frame in await subscription.take(10) or ()]
        hub.leave(subscription)
        await hub.stop()
        return got

    assert asyncio.run(scenario())[:1] == [4]


def test_a_watcher_is_brought_the_rest_of_a_job_whose_history_has_moved_meanwhile(tmp_path):
    async def scenario() -> tuple[list[int], int]:
        store = MemoryStore(archive=Archive(ArtifactStore(str(tmp_path))))
        assignment = running(store)
        hub = Hub(store, look=0.05)
        subscription = hub.subscribe()
        assert hub.join(assignment.job_id, 3, subscription)
        job = store.finish(assignment, State.SUCCEEDED, reason="done")
        store.archive(job.id)
        hub.start()
        frames = await subscription.take(10) or ()
        await hub.stop()
        return [frame.sequence for frame in frames], job.sequence

    rest, last = asyncio.run(scenario())

    assert list(range(4, last + 1)) == rest


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

    async def scenario() -> Page | None:
        subscription = Subscription(1000)
        subscription.offer(Page([event]))
        subscription.end(UnavailableError("over"))
        taken = await subscription.take(1)
        with pytest.raises(UnavailableError):
            await subscription.take(1)
        return taken

    assert (event,) == asyncio.run(scenario())


def test_silence_is_counted_from_the_last_time_that_something_was_awaited_and_a_shorter_one_is_kept_too():
    event = Frame("job-1", 1, 0.0, b"event", False)

    async def scenario() -> None:
        loop, subscription = asyncio.get_running_loop(), Subscription(1000)
        loop.call_later(0.1, subscription.offer, Page([event]))
        assert (event,) == await subscription.take(0.2)
        began = loop.time()
        assert await subscription.take(0.2) == ()
        assert 0.19 < loop.time() - began
        loop.call_later(0.01, subscription.offer, Page([event]))
        assert (event,) == await subscription.take(60)
        began = loop.time()
        assert await subscription.take(0.05) == ()
        assert loop.time() - began < 30

    asyncio.run(scenario())


def test_nothing_on_the_event_loop_keeps_a_watch_that_was_left():
    async def scenario() -> None:
        hub = Hub(MemoryStore())
        subscription = hub.subscribe()
        waits = asyncio.create_task(subscription.take(3600))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.wait([waits])
        hub.leave(subscription)
        left = weakref.ref(subscription)
        del subscription, waits
        gc.collect()
        assert left() is None

    asyncio.run(scenario())


def test_watchers_of_one_job_are_sent_the_very_same_bytes():
    async def scenario() -> list[list[bytes]]:
        store = MemoryStore()
        hub = Hub(store, look=60)
        hub.start()
        assignment = running(store)
        queues = [hub.subscribe() for _ in range(2)]
        for queue in queues:
            assert hub.join(assignment.job_id, 3, queue)
        store.append(assignment, 1, [MetricBatch.at(step, {"loss": 1.0}) for step in range(5)])
        taken = [list((await queue.take(10) or Page()).together) for queue in queues]
        await hub.stop()
        return taken

    first, second = asyncio.run(scenario())
    assert len(first) == 1
    assert first[0] is second[0]


def test_a_job_whose_history_has_moved_is_watched_from_any_place_as_before(tmp_path):
    store = MemoryStore(archive=Archive(ArtifactStore(str(tmp_path))))
    assignment = running(store)
    for batch in range(1, 41):
        store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0}), LogBatch(lines=(LogLine(text="x"),))])
    job = store.finish(assignment, State.SUCCEEDED, reason="done")

    async def everything(after: int) -> list[JobEvent]:
        watching = Watches(store, Hub(store), store.get, page=10).watch({job.id: after}, batched=False)
        events = [WatchJobResponse.FromString(data).event async for data in watching]
        return [event for event in events if event.sequence]

    async def watched() -> list[list[JobEvent]]:
        return [await everything(after) for after in (0, 1, 37, job.sequence - 1, job.sequence)]

    before = asyncio.run(watched())
    store.archive(job.id)

    assert before == asyncio.run(watched())
    assert [job.sequence, job.sequence - 1, job.sequence - 37, 1, 0] == list(map(len, before))


async def many(store: MemoryStore, hub: Hub, after: dict[str, int], **options: Any):
    async for data in Watches(store, hub, store.get, **options).watch(after, batched=True):
        response = WatchJobsResponse.FromString(data)
        for event in (response.event, *response.more):
            yield event


@pytest.mark.parametrize("length", [1, 5_000])
def test_who_asks_for_events_together_gets_the_same_ones_in_few_messages_that_are_not_too_large(length):
    store = MemoryStore()
    assignment = running(store)
    for batch in range(1, 101):
        store.append(assignment, batch, [LogBatch(lines=(LogLine(text="x" * length),))])
    store.finish(assignment, State.SUCCEEDED, reason="done")

    async def sent(batched: bool) -> list[bytes]:
        watches = Watches(store, Hub(store), store.get)
        return [data async for data in watches.watch({assignment.job_id: 0}, batched=batched)]

    single, several = (list(map(WatchJobResponse.FromString, asyncio.run(sent(batched)))) for batched in (False, True))

    assert [response.event for response in single] == [
        event for response in several for event in (response.event, *response.more)
    ]
    assert not any(response.more for response in single)
    # The snapshot, and so many times 256 KiB.
    assert 1 + (1 if length == 1 else 2) == len(several)


def test_many_jobs_come_on_one_stream_each_whole_and_in_order_and_the_stream_ends_with_the_last():
    async def scenario() -> tuple[list[JobEvent], dict[str, list[JobEvent]]]:
        store = MemoryStore()
        hub = Hub(store, look=0.05)
        hub.start()
        assignments = [running(store, slot) for slot in range(3)]
        told: list[JobEvent] = []
        for assignment in assignments[:2]:
            for batch in range(1, 30):
                store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0})])
        watching = many(store, hub, {assignment.job_id: 0 for assignment in assignments}, page=7)
        while {event.sequence for event in told} < {31}:
            told.append(await anext(watching))
        for batch in range(30, 40):
            for assignment in assignments:
                store.append(assignment, batch, [LogBatch(lines=(LogLine(text="x"),))])
        for assignment in assignments:
            store.finish(assignment, State.SUCCEEDED, reason="done")
        told += [event async for event in watching]
        await hub.stop()
        return told, {one.job_id: alone(store, one.job_id) for one in assignments}

    told, ledger = asyncio.run(scenario())

    assert ["snapshot"] * 3 == [event.WhichOneof("payload") for event in told[:3]]
    assert ledger == {job_id: [event for event in told[3:] if event.job_id == job_id] for job_id in ledger}


def alone(store: MemoryStore, job_id: str) -> list[JobEvent]:
    """The events of a job, as the ledger has them."""
    events = []
    for stored in store.events(job_id, after=0).events:
        events.append(JobEvent.FromString(stored.data))
        events[-1].sequence = stored.sequence
    return events


def test_a_watch_of_many_is_silent_only_when_all_are_and_names_none_in_its_signs_of_life():
    async def scenario() -> list[JobEvent]:
        store = MemoryStore()
        hub = Hub(store, look=0.05)
        hub.start()
        after = {running(store, slot).job_id: 3 for slot in range(2)}
        watching = many(store, hub, after, keepalive=0.05)
        told = [await anext(watching) for _ in range(4)]
        await hub.stop()
        return told

    told = asyncio.run(scenario())

    assert ["snapshot", "snapshot", "keepalive", "keepalive"] == [event.WhichOneof("payload") for event in told]
    assert ["", ""] == [event.job_id for event in told[2:]]


def test_jobs_that_had_ended_where_the_caller_stands_are_told_as_they_stand_and_nothing_more():
    async def scenario() -> list[int]:
        store = MemoryStore()
        assignments = [running(store, slot) for slot in range(3)]
        for assignment in assignments:
            store.finish(assignment, State.SUCCEEDED, reason="done")
        return [
            event.sequence
            async for event in many(store, Hub(store), dict.fromkeys([one.job_id for one in assignments], 4))
        ]

    assert [0, 0, 0] == asyncio.run(scenario())


def test_a_slow_watcher_of_many_keeps_no_more_than_it_may_and_still_misses_nothing():
    async def scenario() -> tuple[dict[str, list[int]], dict[str, int], int]:
        store = MemoryStore()
        hub = Hub(store, queue=2000, look=0.05)
        hub.start()
        assignments = [running(store, slot) for slot in range(5)]
        slow = many(store, hub, {one.job_id: 0 for one in assignments}, keepalive=0.05, page=10)
        seen: dict[str, list[int]] = {one.job_id: [] for one in assignments}
        while (event := await anext(slow)).WhichOneof("payload") != "keepalive":
            seen[event.job_id] += [event.sequence] if event.sequence else []
        most = 0
        for batch in range(1, 40):
            for one in assignments:
                store.append(one, batch, [LogBatch(lines=(LogLine(text="x" * 200),))])
            await asyncio.sleep(0.005)
            queues = {queue for channel in hub._snapshot() for queue in channel.subscriptions}
            most = max(most, *(sum(page.size for page in queue._waiting) for queue in queues))
        for one in assignments:
            store.finish(one, State.SUCCEEDED, reason="done")
        async for event in slow:
            seen[event.job_id] += [event.sequence] if event.sequence else []
        last = {one.job_id: store.get(one.job_id).sequence for one in assignments}
        await hub.stop()
        return seen, last, most

    seen, last, most = asyncio.run(scenario())

    assert {job_id: list(range(1, sequence + 1)) for job_id, sequence in last.items()} == seen
    assert most <= 2000


def test_a_gap_in_one_of_many_jobs_is_out_of_range_and_names_it():
    async def scenario() -> OutOfRangeError:
        store = MemoryStore(events_kept=5)
        whole, trimmed = running(store), running(store, 1)
        for batch in range(1, 20):
            store.append(trimmed, batch, [LogBatch(lines=(LogLine(text="x"),))])
        with pytest.raises(OutOfRangeError) as caught:
            async for _ in many(store, Hub(store), {whole.job_id: 0, trimmed.job_id: 2}):
                pass
        assert trimmed.job_id == caught.value.metadata["job_id"]
        return caught.value

    assert "18" == asyncio.run(scenario()).metadata["oldest_sequence"]


def test_more_jobs_than_are_read_in_one_step_are_each_whole():
    async def scenario() -> dict[str, list[int]]:
        store = MemoryStore()
        hub = Hub(store, look=0.05)
        hub.start()
        assignments = [running(store, slot) for slot in range(120)]
        seen: dict[str, list[int]] = {one.job_id: [] for one in assignments}
        watching = many(store, hub, dict.fromkeys(seen, 0))
        while sum(map(len, seen.values())) < 360:
            event = await anext(watching)
            seen[event.job_id] += [event.sequence] if event.sequence else []
        for one in assignments:
            store.finish(one, State.SUCCEEDED, reason="done")
        async for event in watching:
            seen[event.job_id].append(event.sequence)
        await hub.stop()
        return seen

    assert [[1, 2, 3, 4]] * 120 == list(asyncio.run(scenario()).values())
