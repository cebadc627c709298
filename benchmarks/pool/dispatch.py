"""How long the dispatcher takes to decide who runs next: 500 machines of 8 slots, up to 30,000 jobs in line.

The line is of 20 projects, two classes, jobs of 1 to 8 slots on one machine or two, a third of them for one model of
GPU only, a third with a bound on their time. Machines, jobs and what runs are simulated; plan, snapshots and Redis are
real. Decisions are pure, so their CPU time is told, which a busy machine changes less than the time that passes.
"""

import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Row
from podium.jobs.job import Member, Node, NodeState, Slot
from podium.jobs.settings import Settings
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Priority, Resources
from podium.jobs.store import Leases, NewJob
from podium.jobs.store.redis import RedisStore, connect
from podium.server.dispatcher import Sharing, Snapshots
from podium.server.dispatcher._plan import plan
from podium.server.dispatcher._pool import Demand, Pool, Running, Waiting
from tests.conftest import RedisServer

_MACHINES, _SLOTS, _PROJECTS = 500, 8, 20
_LIMIT = 20.0
_NOW = 1000.0
_FEW = 8
_MODELS = ("NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3")
_SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def measure(*, turns: int = 15) -> list[Row]:
    """The rows.

    Args:
        turns: looks that a median is of.
    """
    return [*_decisions(turns), _growth(turns), *_looks(turns)]


def _decisions(turns: int) -> list[Row]:
    states = {f"steady state, {_FEW} slots free": _FEW, "every slot free": _MACHINES * _SLOTS}
    return [
        _row(f"decision, 10,000 jobs in line, {name}", *_median(_planning(10_000, free), turns))
        for name, free in states.items()
    ]


def _growth(turns: int) -> Row:
    counts = (1_000, 3_000, 10_000, 30_000)
    found = {count: _median(_planning(count, _FEW), turns)[0] for count in counts}
    low, high = 3_000, 30_000
    allowed = high * math.log(high) / (low * math.log(low))
    return Row(
        what="decision, steady state, from 3,000 to 30,000 jobs, against n log n",
        ours=" ".join(f"{count:,}: {found[count]:.1f} ms" for count in counts),
        peer=f"{allowed:.1f} times as long",
        ratio=found[high] / found[low] / allowed,
        bar="<= 1",
    )


def _row(what: str, median: float, spread: tuple[float, float]) -> Row:
    around = (spread[0] / _LIMIT, spread[1] / _LIMIT)
    return Row(
        what=what,
        ours=f"{median:.1f} ms of CPU time",
        peer=f"{_LIMIT:.0f} ms",
        ratio=median / _LIMIT,
        bar="<= 1",
        spread=around,
    )


def _median(
    run: Callable[[], object], turns: int, clock: Callable[[], float] = time.thread_time
) -> tuple[float, tuple[float, float]]:
    """Milliseconds."""
    run()
    found = []
    for _ in range(turns):
        began = clock()
        run()
        found.append((clock() - began) * 1e3)
    return statistics.median(found), (min(found), max(found))


def _planning(jobs: int, free: int) -> Callable[[], object]:
    pool = _pool(jobs, free)
    # A new one each time, so that nothing is known of it beforehand.
    return lambda: plan(Pool(**pool))  # type: ignore[arg-type]  # its fields by name


def _pool(jobs: int, free: int) -> dict[str, object]:
    chance = random.Random(0)
    idle = set(chance.sample(range(_MACHINES * _SLOTS), free))
    running = {
        f"r{place}": Running(
            id=f"r{place}",
            project=f"p{place % _PROJECTS}",
            members=(Member(node=f"n{place // _SLOTS:03}", slots=(place % _SLOTS,)),),
            since=float(place % 1000),
            until=chance.choice([math.inf, _NOW + place]),
        )
        for place in range(_MACHINES * _SLOTS)
        if place not in idle
    }
    waiting = [
        Waiting(
            id=f"w{number}",
            project=f"p{chance.randrange(_PROJECTS)}",
            rank=chance.choice([Priority.LOW, Priority.NORMAL]).value,
            number=number,
            demand=Demand(*_shape(chance), chance.choice(["", "", "h100"])),
            seconds=chance.choice([math.inf, math.inf, 3600.0]),
        )
        for number in range(jobs)
    ]
    return {
        "now": _NOW,
        "nodes": [_machine(number, running) for number in range(_MACHINES)],
        "waiting": sorted(waiting, key=lambda job: (-job.rank, job.number)),
        "running": running,
        "usage": {f"p{project}": 1000.0 * project for project in range(_PROJECTS)},
    }


def _shape(chance: random.Random) -> tuple[int, int]:
    """Slots of a machine, and machines."""
    return chance.choice([(1, 1)] * 12 + [(2, 1)] * 4 + [(4, 1)] * 2 + [(8, 1), (4, 2)])


def _machine(number: int, running: dict[str, Running]) -> Node:
    held = [f"r{number * _SLOTS + slot}" for slot in range(_SLOTS)]
    slots = tuple(
        Slot(index=index, model=_MODELS[number % 2], memory_bytes=40 << 30, job_id=who if who in running else "")
        for index, who in enumerate(held)
    )
    return Node(id=f"n{number:03}", pool="default", state=NodeState.READY, slots=slots, address="10.0.0.1")


def _looks(turns: int) -> list[Row]:
    """What a look costs with all that it reads, the first one, and those that follow."""
    leases = Leases(node=1e6, attempt=1e6, starting=1e6)
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            url = server.url
            settings = Settings(redis_url=url, redis_password=None, artifacts="", data_roots=(), leases=leases)
            with connect(settings) as client:
                client.config_set("appendfsync", "no")
                store = RedisStore(client, leases=leases)
                _fill(store)
                return _looked(Snapshots(store, leases, Sharing()), turns)
        finally:
            server.kill()


def _looked(snapshots: Snapshots, turns: int) -> list[Row]:
    steps, longest, complete = 0, 0.0, False
    while not complete:
        began = time.perf_counter()
        complete = snapshots.look().complete
        longest = max(longest, time.perf_counter() - began)
        steps += 1
    first = Row(
        what=f"the first look at 10,000 jobs and 4,000 slots, in {steps} steps; the longest against the leader's term",
        ours=f"{longest:.2f} s",
        peer="5 s",
        ratio=longest / 5.0,
        bar="<= 1",
    )
    reading, _ = _median(snapshots.look, turns, time.perf_counter)
    whole, spread = _median(lambda: [plan(pool) for pool in snapshots.look().pools.values()], turns, time.perf_counter)
    return [
        first,
        Row(
            what="a whole look, 10,000 jobs in line, no slot free: reading from Redis and the decision",
            ours=f"{whole:.0f} ms, {reading:.0f} of them reading",
            peer="250 ms, the time between two",
            ratio=whole / 250.0,
            bar="<= 1",
            spread=(spread[0] / 250.0, spread[1] / 250.0),
        ),
    ]


def _fill(store: RedisStore) -> None:
    """4,000 jobs in slots, 10,000 in line."""
    chance = random.Random(0)
    for number in range(_MACHINES):
        store.heartbeat(_machine(number, {}))
    jobs = [_submit(store, chance, (1, 1)) for _ in range(_MACHINES * _SLOTS)]
    for place, job_id in enumerate(jobs):
        store.begin(store.dispatch(job_id, f"n{place // _SLOTS:03}", place % _SLOTS))
    for _ in range(10_000):
        _submit(store, chance, _shape(chance))


def _submit(store: RedisStore, chance: random.Random, shape: tuple[int, int]) -> str:
    spec = JobSpec(
        backbone=_SPEC.backbone,
        tuning=_SPEC.tuning,
        dataset=_SPEC.dataset,
        sorter=_SPEC.sorter,
        resources=Resources(gpus=shape[0], nodes=shape[1]),
    )
    project = f"p{chance.randrange(_PROJECTS)}"
    return store.create(NewJob(project=project, spec=spec, classes=("a", "b")))[0].id
