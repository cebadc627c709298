"""1,000 watchers of 100 jobs with 10 events a second each, on one server process, against grpc.aio alone."""

import statistics
import time
from dataclasses import dataclass

import redis

from benchmarks.rows import Row, ratios, turns
from benchmarks.service import site
from benchmarks.service.watchers import Seen, Watching
from podium.api.v1 import event_pb2
from podium.api.v1 import job_service_pb2 as pb
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.job import Progress
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Assignment, NewJob

_JOBS, _WATCHERS, _CONNECTIONS = 100, 1000, 20
#: As an attempt writes: twice a second, points, lines and how far it is.
_WRITES, _EVENTS = 2, 5
_SECONDS = 10.0
_SPEC = JobSpec(backbone="resnet18", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of ours, or of the limit."""

    seen: Seen
    expected: int
    seconds: float
    """How long the events were written, or sent."""
    cpu: float
    """The server's CPU seconds for an event to one watcher."""
    resident: int = 0
    """Bytes."""
    connections: int = 0
    """The server's to Redis."""


def measure(count: int) -> list[Row]:
    """The rows.

    Args:
        count: turns that a median is of.
    """
    # All watchers come from one address, so to the server they are one caller.
    with site.podium(PODIUM_STREAMS_PER_CALLER="0") as ours, site.echo() as echo:
        found, limit = turns(count, lambda: _watched(ours), lambda: _sent(echo))
    what = f"{_WATCHERS:,} watchers of {_JOBS} jobs, {_WRITES * _EVENTS} events/s each"
    shares = [turn.seen.events / turn.expected for turn in found]
    slow = [turn.seen.lags[1] for turn in found]
    wrong = sum(turn.seen.wrong for turn in found)
    cpu, spread = ratios([turn.cpu for turn in found], [turn.cpu for turn in limit])
    return [
        Row(
            what=f"{what}: delivered in order",
            ours=f"{sum(turn.seen.events for turn in found):,}, out of order {wrong}",
            peer=f"{sum(turn.expected for turn in found):,} written",
            ratio=min(shares) if not wrong else 0.0,
            bar="= 1",
            spread=(min(shares), max(shares)),
        ),
        Row(
            what=f"{what}: lag p99",
            ours=f"{statistics.median(slow) * 1e3:,.0f} ms at {_rate(found):,.0f} deliveries/s",
            peer="500 ms",
            ratio=statistics.median(slow) / 0.5,
            bar="<= 1",
            spread=(min(slow) / 0.5, max(slow) / 0.5),
        ),
        Row(
            what=f"{what}: memory, connections to Redis",
            ours=f"{max(turn.resident for turn in found) >> 20} MiB, {max(turn.connections for turn in found)}",
            peer="1 GiB, 4",
            ratio=max(max(turn.resident / 2**30, turn.connections / 4) for turn in found),
            bar="<= 1",
        ),
        Row(
            what=f"{what}: CPU an event and watcher, {_EVENTS} events at a time",
            ours=f"{statistics.median(turn.cpu for turn in found) * 1e6:.0f} us",
            peer=f"grpc.aio sending the same: {statistics.median(turn.cpu for turn in limit) * 1e6:.0f} us",
            ratio=cpu,
            bar="",
            spread=spread,
        ),
    ]


def _rate(found: list[Turn]) -> float:
    return statistics.median(turn.seen.events / turn.seconds for turn in found)


def _watched(ours: site.Site) -> Turn:
    attempts = [running(ours, slot) for slot in range(_JOBS)]
    requests = []
    for place in range(_WATCHERS):
        job_id = attempts[place % _JOBS].job_id
        # Queued, starting, running: what comes after that is what is measured.
        requests.append(pb.WatchJobRequest(job_id=job_id, after_sequence=3, batched=True).SerializeToString())
    watching = Watching(ours.server, "/podium.api.v1.JobService/WatchJob", requests, connections=_CONNECTIONS)
    before, began = ours.server.cpu_seconds(), time.perf_counter()
    written = _write(ours, attempts, began)
    seconds = time.perf_counter() - began
    with redis.Redis.from_url(ours.redis.url) as client:
        connections = len(client.client_list()) - 2  # this one, and that of the store that writes
    resident = ours.server.resident_bytes()
    for attempt in attempts:
        ours.store.finish(attempt, State.SUCCEEDED, reason="done")
    seen = watching.seen()
    used = ours.server.cpu_seconds() - before
    expected = (written + _JOBS) * _WATCHERS // _JOBS
    return Turn(
        seen=seen,
        expected=expected,
        seconds=seconds,
        cpu=used / expected,
        resident=resident,
        connections=connections,
    )


def running(ours: site.Site, slot: int) -> Assignment:
    """A job that an attempt on a slot runs, played by the caller."""
    job, _ = ours.store.create(NewJob(project="default", spec=_SPEC, classes=("cat", "dog")))
    assignment = ours.store.dispatch(job.id, "played", slot)
    ours.store.begin(assignment)
    return assignment


def _write(ours: site.Site, attempts: list[Assignment], began: float) -> int:
    """Lets each attempt write at its pace, one after the other, and says how many events that were."""
    written = 0
    for batch in range(1, round(_SECONDS * _WRITES) + 1):
        for place, attempt in enumerate(attempts):
            due = began + (batch - 1 + place / len(attempts)) / _WRITES
            time.sleep(max(0.0, due - time.perf_counter()))
            line = LogLine(text=f"epoch {batch} of 20, 512 images/s")
            progress = Progress(phase="training", step=batch, total_steps=100)
            payloads: list[MetricBatch | LogBatch | Progress]
            payloads = [MetricBatch.at(batch, {"train/loss": time.time()}), LogBatch(lines=(line,)), progress]
            payloads += [LogBatch(lines=(line,))] * (_EVENTS - len(payloads))
            ours.store.append(attempt, batch, payloads)
            written += len(payloads)
    return written


def _sent(echo: site.Serving) -> Turn:
    """The limit: as many streams, the same messages at the same pace, and nothing else."""
    event = event_pb2.JobEvent(job_id="job-0123456789abcdef", sequence=1, attempt=1)
    event.time.GetCurrentTime()
    event.log.lines.add(text="epoch 10 of 20, 512 images/s")
    request = pb.WatchJobResponse(event=event, more=[event] * (_EVENTS - 1)).SerializeToString()
    watching = Watching(echo, "/benchmarks.Echo/Watch", [request] * _WATCHERS, connections=_CONNECTIONS)
    before, began = echo.cpu_seconds(), time.perf_counter()
    seen = watching.seen()
    used = echo.cpu_seconds() - before
    expected = round(_SECONDS * _WRITES * _EVENTS) * _WATCHERS
    return Turn(seen=seen, expected=expected, seconds=time.perf_counter() - began, cpu=used / expected)
