"""What a queued job is told: its place in line, what it waits for, and when it is likely to start."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from podium.jobs import wire
from podium.jobs.job import Job, Node, NodeState, Progress, QueueInfo, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Priority, Resources
from podium.jobs.states import State
from podium.jobs.store import Leases, MemoryStore, NewJob
from podium.server.dispatcher import Dispatcher, Outlook, Sharing, Snapshots
from podium.server.dispatcher._snapshots import Snapshot

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
LEASES = Leases(node=1e6, starting=30.0, grace=30.0)


class Pool:
    """A ledger with machines and jobs, and what is told of those that wait."""

    def __init__(self, **quotas: int) -> None:
        self.now = NOW
        self.store = MemoryStore(clock=lambda: self.now, leases=LEASES)
        self.sharing = Sharing(quotas=quotas)

    def machine(self, name: str, slots: int, *, state: NodeState = NodeState.READY, **facts: object) -> None:
        pool, address = str(facts.pop("pool", "default")), str(facts.pop("address", ""))
        found = tuple(Slot(index=index, **facts) for index in range(slots))  # type: ignore[arg-type]  # by name
        self.store.heartbeat(Node(id=name, pool=pool, state=state, slots=found, address=address))

    def submit(
        self, gpus: int = 1, *, project: str = "default", seconds: int = 0, priority=Priority.NORMAL, **needs
    ) -> str:
        spec = replace(SPEC, resources=Resources(gpus=gpus, **needs), max_duration_seconds=seconds, priority=priority)
        return self.store.create(NewJob(project=project, spec=spec, classes=("a", "b")))[0].id

    def dispatch(self) -> None:
        """Starts what can be started, and has it run."""
        Dispatcher(self.store, self, self._snapshots()).dispatch()
        for job, assignment, _ in self.store.holding():
            if job.state is State.STARTING:
                self.store.begin(assignment)

    def deliver(self, *_: object) -> None:
        """See podium.server.dispatcher.Delivery."""

    def _snapshots(self) -> Snapshots:
        return Snapshots(self.store, LEASES, self.sharing, lambda: self.now)

    def told(self, job_id: str) -> QueueInfo:
        outlook = Outlook(self._snapshots())
        (job,) = outlook.explained([self.store.get(job_id)])
        assert job.queue is not None
        _, data = self.store.serialized(job_id)
        assert job == wire.from_bytes(Job, data + outlook.of_serialized(data, self.store.place))
        return job.queue

    def reason(self, job_id: str) -> str:
        return self.told(job_id).wait_reason


def test_a_job_that_no_machine_can_hold_is_told_the_largest():
    pool = Pool()
    pool.machine("a", 2)
    pool.machine("c", 8, pool="other")

    assert (
        "needs 4 slots of one machine; the largest that takes jobs in pool default has 2: "
        "start a larger one, or submit with resources.gpus of at most 2"
    ) == pool.reason(pool.submit(4))


def test_a_machine_that_takes_no_jobs_is_not_counted():
    pool = Pool()
    pool.machine("a", 2)
    pool.machine("b", 4, state=NodeState.DRAINING)

    assert "has 2" in pool.reason(pool.submit(4))


def test_a_pool_without_machines_says_how_to_start_one_and_one_of_drained_machines_why_they_take_nothing():
    pool = Pool()
    pool.machine("c", 1, pool="other")
    waits = pool.submit()

    assert "start one with" in pool.reason(waits)
    pool.machine("a", 1, state=NodeState.DRAINING)
    assert "no worker in pool default takes jobs: a is draining; start another" in pool.reason(waits)


def test_a_pool_that_nobody_has_is_told_with_the_option_that_makes_a_worker_one_of_it():
    pool = Pool()
    pool.machine("a", 1)

    told = pool.reason(pool.submit(pool="nigth"))
    assert told.endswith("start one with `python -m podium.worker --pool nigth`, or submit with another resources.pool")


def test_a_model_or_memory_that_nobody_has_is_named_with_what_there_is():
    pool = Pool()
    pool.machine("a", 1, model="NVIDIA A100", memory_bytes=40 << 30)

    assert (
        'needs a slot whose model has "h100" in its name; pool default has NVIDIA A100 (40 GiB): start a machine that '
        "has them, or submit with another resources.gpu_model"
    ) == pool.reason(pool.submit(gpu_model="H100"))
    assert "needs a slot with 80 GiB" in pool.reason(pool.submit(min_memory_gib=80))


def test_machines_without_an_address_do_not_count_for_a_job_of_several():
    pool = Pool()
    pool.machine("a", 1, address="10.0.0.1")
    pool.machine("b", 1)

    assert (
        "needs 1 slot on each of 2 machines; pool default has 1 such machine, and 1 more that no other can reach"
    ) in pool.reason(pool.submit(nodes=2))


def test_a_slot_in_trouble_is_no_slot():
    pool = Pool()
    pool.machine("a", 1, trouble="another process holds 70 of 80 GiB")

    assert "no slot in pool default takes jobs: another process holds 70 of 80 GiB" in pool.reason(pool.submit())


def test_whoever_is_first_is_told_for_which_machine_it_waits_and_whoever_is_behind_that_it_is_not_its_turn():
    pool = Pool()
    pool.machine("a", 2)
    pool.submit()
    pool.dispatch()
    large, small = pool.submit(2), pool.submit()

    assert (1, "waiting for 2 free slots of one machine in pool default: 1 of 2 busy; a kept for it") == (
        pool.told(large).position,
        pool.reason(large),
    )
    assert (2, "waiting for its turn in pool default: free slots go to jobs before it; 1 of 2 busy") == (
        pool.told(small).position,
        pool.reason(small),
    )


def test_whoever_gets_a_free_slot_is_about_to_start_now():
    pool = Pool()
    pool.machine("a", 1)
    waits = pool.submit()

    assert "about to start in pool default: 0 of 1 slots are busy" == pool.reason(waits)
    assert NOW == pool.told(waits).estimated_start_time


def test_the_position_is_that_of_the_real_order_not_of_creation():
    pool = Pool()
    pool.machine("a", 1)
    pool.submit()
    pool.dispatch()
    first, other, urgent = pool.submit(), pool.submit(project="other"), pool.submit(priority=Priority.URGENT)

    assert [1, 2, 3] == [pool.told(job).position for job in (urgent, other, first)]


def test_a_project_beyond_its_quota_is_told_so():
    pool = Pool(vision=1)
    pool.machine("a", 2)
    pool.submit(project="vision")
    pool.dispatch()
    borrows, within = pool.submit(project="vision"), pool.submit(project="nlp")

    assert (
        "project vision holds 1 of its quota of 1 slots of pool default: "
        "it gets more once nobody within a quota waits; 1 of 2 busy"
    ) == pool.reason(borrows)
    assert pool.reason(within).startswith("about to start")


def test_whoever_has_others_interrupted_for_it_is_told_where():
    pool = Pool()
    pool.machine("a", 1)
    pool.submit(priority=Priority.LOW)
    pool.dispatch()
    urgent = pool.submit(priority=Priority.URGENT)

    assert "about to start in pool default: jobs on a are saving their work to make room" == pool.reason(urgent)
    assert NOW + timedelta(seconds=LEASES.grace) == pool.told(urgent).estimated_start_time


def test_whoever_waits_for_its_next_attempt_is_told_when_and_why():
    pool = Pool()
    pool.machine("a", 1)
    waits = pool.submit()
    for _ in range(3):
        pool.now += timedelta(minutes=5)
        pool.dispatch()
        for _, assignment, _ in pool.store.holding():
            pool.store.recover(assignment, "the process was killed")
    retry = pool.store.get(waits).retry_time

    assert retry is not None
    assert f"tried again at {retry:%H:%M:%S} UTC, as the last attempt failed: the process was killed" == pool.reason(
        waits
    )
    assert retry == pool.told(waits).estimated_start_time


def test_the_start_is_foreseen_from_progress_and_bounds_of_those_before():
    pool = Pool()
    pool.machine("a", 1)
    pool.submit()
    pool.dispatch()
    first, second, third = pool.submit(seconds=600), pool.submit(), pool.submit()

    assert [None, None] == [pool.told(job).estimated_start_time for job in (first, second)]
    ((_, assignment, _),) = pool.store.holding()
    pool.store.append(assignment, 1, [Progress(phase="train", eta_seconds=90.0)])
    foreseen = [pool.told(job).estimated_start_time for job in (first, second, third)]

    # A job that waits takes as long as it may, and then as long as it may take to begin and to stop.
    assert [NOW + timedelta(seconds=90), NOW + timedelta(seconds=90 + 600 + 60), None] == foreseen


def test_a_job_that_does_not_wait_is_told_nothing():
    pool = Pool()
    job: Job = pool.store.get(pool.submit())
    paused = pool.store.pause(job.id, "later")

    assert [paused] == Outlook(Snapshots(pool.store, LEASES, Sharing(), lambda: NOW)).explained([paused])


class Slow(Snapshots):
    """Takes a second for each look, the second one until it may end."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, LEASES, Sharing(), lambda: NOW)
        self.now = 0.0
        self.looks: list[str] = []
        self.may_end = threading.Event()
        self.seen: Snapshot | None = None

    def recent(self) -> Snapshot:
        if self.looks:
            assert self.may_end.wait(10)
        self.looks.append(threading.current_thread().name)
        self.now += 1.0
        return self.seen or self.look()


def seen_once() -> tuple[Pool, Slow, Outlook, Job, list[Job]]:
    """A pool with one machine, and what its job was told by the first look at it."""
    pool = Pool()
    pool.machine("a", 1)
    snapshots = Slow(pool.store)
    outlook = Outlook(snapshots, ticks=lambda: snapshots.now)
    job = pool.store.get(pool.submit())
    return pool, snapshots, outlook, job, outlook.explained([job])


def test_of_a_long_line_callers_are_told_what_was_seen_last_while_somebody_looks_again():
    pool, snapshots, outlook, job, first = seen_once()
    pool.machine("a", 0)
    snapshots.now = 7.0

    assert first == outlook.explained([job]) == outlook.explained([job])
    snapshots.may_end.set()
    (again,) = (thread for thread in threading.enumerate() if thread.name == "podium-outlook")
    again.join()
    assert [threading.current_thread().name, "podium-outlook"] == snapshots.looks
    assert first != outlook.explained([job])


def test_where_no_thread_can_be_started_to_look_again_the_next_caller_tries_again(monkeypatch):
    _, snapshots, outlook, job, first = seen_once()
    snapshots.may_end.set()
    snapshots.now = 7.0
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        assert first == outlook.explained([job])
    outlook.explained([job])
    for again in [thread for thread in threading.enumerate() if thread.name == "podium-outlook"]:
        again.join()

    assert [threading.current_thread().name, "podium-outlook"] == snapshots.looks


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


class LongLine(tuple[Any, ...]):
    """A line that is being planned for until that may end."""

    began: threading.Event
    may_end: threading.Event

    def __getitem__(self, place: Any) -> Any:
        self.began.set()
        assert self.may_end.wait(10)
        return super().__getitem__(place)


def test_while_a_long_line_is_planned_for_callers_are_told_of_pools_that_have_no_machine():
    pool = Pool()
    pool.machine("a", 1)
    job, elsewhere = (pool.store.get(pool.submit(pool=name)) for name in ("default", "nowhere"))
    snapshots, began = Slow(pool.store), threading.Event()
    outlook = Outlook(snapshots, ticks=lambda: snapshots.now)
    outlook.explained([job])
    seen, snapshots.now = snapshots.look(), 7.0
    line = LongLine(seen.pools["default"].waiting)
    line.began, line.may_end = began, threading.Event()
    snapshots.seen = replace(seen, pools={"default": replace(seen.pools["default"], waiting=line)})
    snapshots.may_end.set()

    with ThreadPoolExecutor(1) as threads:
        outlook.explained([job])
        assert began.wait(10)
        told = threads.submit(outlook.explained, [elsewhere])
        try:
            (found,) = told.result(timeout=2)
        finally:
            line.may_end.set()
    assert found.queue is not None
    assert "no worker in pool nowhere" in found.queue.wait_reason


def test_what_was_seen_long_ago_is_not_told():
    pool, snapshots, outlook, job, first = seen_once()
    snapshots.may_end.set()
    pool.machine("a", 0)
    snapshots.now = 60.0

    assert first != outlook.explained([job])
