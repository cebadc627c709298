"""When the leader looks at the ledger: at once where somebody may start, and never most of the time."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from podium.jobs.errors import UnavailableError
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Assignment, Leases, MemoryStore, NewJob
from podium.server.dispatcher import Dispatcher, Leader, Reconciler, Sharing, Snapshots, Upkeep
from podium.server.watch import Hub

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
LEASES = Leases(node=1e6)


class Undelivered:
    def deliver(self, assignment: Assignment, node: str, slot: int) -> None:
        """See Delivery.deliver."""


class Slow(MemoryStore):
    """A ledger that takes its time to tell of its machines."""

    looks = 0

    def nodes(self) -> Sequence[Node]:
        time.sleep(0.1)
        self.looks += 1
        return super().nodes()


class Away(MemoryStore):
    """A ledger that is not there at first."""

    there = False

    def nodes(self) -> Sequence[Node]:
        if not self.there:
            raise UnavailableError("the ledger cannot be reached")
        return super().nodes()


def leading(store: MemoryStore, **pace: Any) -> tuple[Leader, Dispatcher]:
    snapshots = Snapshots(store, LEASES, Sharing())
    dispatcher = Dispatcher(store, Undelivered(), snapshots)
    reconciler = Reconciler(store, snapshots, LEASES)
    return Leader(store, dispatcher, reconciler, owner="test", **pace), dispatcher


async def until(condition: Callable[[], Any], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_job_that_comes_while_nothing_waits_starts_when_the_bell_rings_and_not_at_the_next_look():
    async def scenario() -> State:
        store = MemoryStore(leases=LEASES)
        store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
        leader, dispatcher = leading(store, tick=0.01, quiet=3600.0)
        hub = Hub(store, rang=leader.wake)
        hub.start()
        leader.start()
        await until(lambda: not dispatcher.waited_for)
        job, _ = store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))
        await until(lambda: store.get(job.id).state is State.STARTING)
        await asyncio.to_thread(leader.stop)
        await hub.stop()
        return store.get(job.id).state

    assert State.STARTING is asyncio.run(scenario())


def test_looks_that_take_long_are_made_a_fifth_of_the_time():
    store = Slow(leases=LEASES)
    store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
    for _ in range(2):
        store.create(NewJob(project="default", spec=SPEC, classes=("a", "b")))
    leader, _ = leading(store, tick=0.01)
    leader.start()
    time.sleep(1.3)  # what is told is how often it looks in a time
    leader.stop()

    assert 1 <= store.looks <= 4


def test_what_was_put_off_while_the_ledger_was_away_is_done_when_it_is_back():
    store, tried, done = Away(leases=LEASES), threading.Event(), threading.Event()

    def deletes() -> None:
        tried.set()
        store.nodes()
        done.set()

    leader, _ = leading(store, tick=0.01, upkeep=Upkeep({"deleting": deletes}, every=0))
    leader.start()
    assert tried.wait(20)
    store.there = True

    # Put off for a minute otherwise.
    assert done.wait(20)
    leader.stop()
