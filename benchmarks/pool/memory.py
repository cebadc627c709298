"""What a job with 10,000 metric points costs Redis: while it runs, when it has ended, and when its history has moved.

MEMORY USAGE of all the keys that bear its name, and, since that leaves out what Redis needs besides, the growth of
used_memory over many such jobs, divided by their number. Both on a Redis of its own.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.rows import Row
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import LogBatch, LogLine, MetricBatch, MetricSeries
from podium.jobs.job import Checkpoint, Progress
from podium.jobs.settings import Settings
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Archive, Assignment, Leases, NewJob
from podium.jobs.store.redis import RedisStore, connect
from tests.conftest import RedisServer

_BAR = 64 << 10
_POINTS = 10_000
#: As the trainer names them.
_METRICS = ("train/loss", "train/top1", "train/top5", "train/learning_rate")
_SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
_CLASSES = tuple(f"class number {index}" for index in range(100))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes a job, by MEMORY USAGE and by the growth of used_memory."""

    keys: float
    used: float


def measure(*, jobs: int = 100, steps_a_write: int = 25) -> list[Row]:
    """The row: KiB a finished job, over so many of them.

    Args:
        jobs: so many.
        steps_a_write: a writer writes twice a second; 1 is a training whose steps take half a second or longer.
    """
    with _ledger() as (client, store):
        start = _used(client)
        running = [_trained(store, slot, steps_a_write) for slot in range(jobs)]
        ids = [assignment.job_id for assignment in running]
        while_it_runs = _cost(client, ids, start)
        for assignment in running:
            store.finish(assignment, State.SUCCEEDED, reason="trained")
        ended = _cost(client, ids, start)
        for job_id in ids:
            store.archive(job_id)
        archived = _cost(client, ids, start)
        _check(store, ids[0])
    for name, cost in (("while it runs", while_it_runs), ("ended", ended), ("archived", archived)):
        print(
            f"a job with {_POINTS:,} points, {steps_a_write} steps a write, {name}: {_kib(cost.keys)} by MEMORY USAGE"
        )
        print(f"  and {_kib(cost.used)} of used_memory, over {jobs} jobs")
    worst = max(archived.keys, archived.used)
    return [
        Row(
            what=f"Redis' memory a finished job with {_POINTS:,} points, its history archived",
            ours=_kib(worst),
            peer=_kib(_BAR),
            ratio=worst / _BAR,
            bar="<= 1",
            spread=(min(archived.keys, archived.used) / _BAR, worst / _BAR),
        )
    ]


@contextmanager
def _ledger() -> Iterator[tuple[redis.Redis, RedisStore]]:
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            settings = Settings(
                redis_url=server.url, redis_password=None, artifacts=folder, data_roots=(), leases=Leases()
            )
            with connect(settings) as client:
                client.config_set("appendfsync", "no")  # nothing here is worth waiting for the disk
                yield client, RedisStore(client, archive=Archive(ArtifactStore(f"{folder}/artifacts")))
        finally:
            server.kill()


def _trained(store: RedisStore, slot: int, steps_a_write: int) -> Assignment:
    """A job about to end: its points, a line and its progress with every hundredth write, five checkpoints."""
    job = store.create(NewJob(project="default", spec=_SPEC, classes=_CLASSES))[0]
    assignment = store.dispatch(job.id, "machine-1", slot)
    store.begin(assignment)
    steps = _POINTS // len(_METRICS)
    for write, first in enumerate(range(1, steps + 1, steps_a_write), start=1):
        at = tuple(range(first, min(first + steps_a_write, steps + 1)))
        series = (MetricSeries(name=name, steps=at, values=tuple(1 / step for step in at)) for name in _METRICS)
        said = LogBatch(lines=(LogLine(text=f"step {first} of {steps}: loss {1 / first:.4f}"),))
        progress = Progress(phase="training", step=first, total_steps=steps, fraction=first / steps)
        points = MetricBatch(series=tuple(series))
        store.append(assignment, write, [points, said, progress] if write % 100 == 1 else [points])
    for number in range(5):
        checkpoint = Checkpoint(id=f"ckpt-{job.id}-{number}", job_id=job.id, attempt=1, step=number, best=not number)
        store.commit_checkpoint(assignment, checkpoint)
    return assignment


def _cost(client: redis.Redis, ids: list[str], start: int) -> Cost:
    keys = sum(_usage(client, job_id) for job_id in ids)
    return Cost(keys=keys / len(ids), used=(_used(client) - start) / len(ids))


def _usage(client: redis.Redis, job_id: str) -> int:
    return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(f"*{job_id}*", count=10_000))


def _used(client: redis.Redis) -> int:
    client.memory_purge()
    used: int = client.info("memory")["used_memory"]
    return used


def _check(store: RedisStore, job_id: str) -> None:
    """That nothing was lost on the way."""
    last = store.get(job_id).sequence
    after = events = 0
    while page := store.events(job_id, after=after).events:
        after, events = page[-1].sequence, events + len(page)
    points = sum(len(series.steps) for _, batch in store.metrics(job_id) for series in batch.series)
    if (events, points) != (last, _POINTS):
        raise AssertionError(f"{events} of {last} events and {points} of {_POINTS} points came back")


def _kib(size: float) -> str:
    return f"{size / 1024:,.1f} KiB"
