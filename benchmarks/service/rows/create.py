"""CreateJob, durable in Redis, from 32 clients: against an echo of the same message, and MLflow's create_run."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psutil
import redis

from benchmarks.rows import Row, ratios, turns
from benchmarks.service import site
from benchmarks.service.load import Load, put, run
from podium.api.v1 import job_service_pb2 as pb
from podium.api.v1.sorter_pb2 import OddEven
from podium.api.v1.spec_pb2 import ImageFolder, JobSpec, LinearHead, Weights
from podium.jobs.store._redis_keys import Keys

_CLIENTS = 32
_PROJECT = "vision"
#: SQLite has one writer, and with 32 clients its callers run into each other's time limits.
_MLFLOW_CLIENTS = 16
_SECONDS, _WARMING = 5.0, 1.0
_WANTED = 1000.0
_SLOWEST = 0.05


def measure(count: int) -> list[Row]:
    """The rows.

    Args:
        count: turns that a median is of.
    """
    redis_cpu: list[float] = []

    def ours() -> Load:
        with _fresh() as own:
            before = _used(own)
            load = create(own, seconds=_SECONDS)
            redis_cpu.append((_used(own) - before) / load.calls)
            return load

    def pair() -> Load:
        with _fresh("--processes", "2") as own:
            return create(own, seconds=_SECONDS)

    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="podium-") as folder:
        echo, quick = (stack.enter_context(site.echo(*options)) for options in ((), ("--uvloop",)))
        mlflow = stack.enter_context(site.mlflow())
        found = turns(
            count,
            ours,
            pair,
            *(partial(_put, each, "/benchmarks.Echo/CreateJob", Path(folder), _SECONDS) for each in (echo, quick)),
            lambda: run(mlflow, _mlflow_clients(mlflow.address)),
        )
    return _rows(*found, redis_cpu=statistics.median(redis_cpu))


@contextmanager
def _fresh(*options: str) -> Iterator[site.Site]:
    """A server that has been called before, in each turn another one.

    The line grows by some thousand jobs a turn, and whoever leads looks at it: also while others are measured.
    """
    with site.podium(*options) as own:
        create(own, seconds=_WARMING)
        yield own


def _used(own: site.Site) -> float:
    """Seconds of CPU of its Redis."""
    times = psutil.Process(own.redis.pid).cpu_times()
    return float(times.user + times.system)


def create(ours: site.Site, *, seconds: float) -> Load:
    """Submits jobs from 32 clients.

    Raises:
        RuntimeError: the ledger has not as many jobs more as calls were answered.
    """
    before = _jobs(ours)
    load = _put(ours.server, "/podium.api.v1.JobService/CreateJob", ours.images, seconds)
    # Each client's first call is not measured.
    answered, made = load.calls + _CLIENTS, _jobs(ours) - before
    if made != answered:
        raise RuntimeError(f"{answered:,} calls were answered, and the ledger has {made:,} jobs more")
    return load


def _jobs(ours: site.Site) -> int:
    """How many the ledger has of the project."""
    with redis.Redis.from_url(ours.redis.url) as client:
        return int(client.zcard(Keys(prefix="podium:").jobs(_PROJECT)))


def _put(serving: site.Serving, method: str, images: Path, seconds: float) -> Load:
    request = _request(str(images)).SerializeToString()
    field = pb.CreateJobRequest.REQUEST_ID_FIELD_NUMBER
    return put(serving, method, request, clients=_CLIENTS, seconds=seconds, request_id_field=field)


def _rows(
    ours: Sequence[Load],
    pair: Sequence[Load],
    echo: Sequence[Load],
    quick: Sequence[Load],
    mlflow: Sequence[Load],
    *,
    redis_cpu: float,
) -> list[Row]:
    what = f"CreateJob, {_CLIENTS} clients, 1 server process"
    rates = [load.rate for load in ours]
    against_one, pair_spread = ratios([load.rate for load in pair], rates)
    slowest = [load.p99 for load in ours]
    return [
        Row(
            what=what,
            ours=_said(ours),
            peer=f"{_WANTED:,.0f}/s",
            ratio=statistics.median(rates) / _WANTED,
            bar=">= 1",
            spread=(min(rates) / _WANTED, max(rates) / _WANTED),
        ),
        Row(
            what=f"{what}, p99",
            ours=f"{statistics.median(slowest) * 1e3:.1f} ms",
            peer=f"{_SLOWEST * 1e3:.0f} ms",
            ratio=statistics.median(slowest) / _SLOWEST,
            bar="<= 1",
            spread=(min(slowest) / _SLOWEST, max(slowest) / _SLOWEST),
        ),
        _against(f"{what}, against an echo of the message", ours, echo, ">= 0.5"),
        _against(f"{what}, against an echo on uvloop, as the server is", ours, quick, ""),
        _against(
            f"{what}, against create_run of MLflow's tracking server with SQLite ({_MLFLOW_CLIENTS} clients)",
            ours,
            mlflow,
            ">= 50",
        ),
        Row(
            what=f"CreateJob, {_CLIENTS} clients, 2 server processes against 1",
            ours=_said_with_clients(pair),
            peer=_said_with_clients(ours),
            ratio=against_one,
            bar="as many as there are cores for",
            spread=pair_spread,
        ),
        Row(
            what="what Redis itself does for a job, against what the server does",
            ours=f"{redis_cpu * 1e6:,.0f} us of CPU: {1 / redis_cpu:,.0f}/s",
            peer=_said(ours),
            ratio=redis_cpu / statistics.median(load.cpu for load in ours),
            bar="",
        ),
    ]


def _against(what: str, ours: Sequence[Load], theirs: Sequence[Load], bar: str) -> Row:
    ratio, spread = ratios([load.rate for load in ours], [load.rate for load in theirs])
    return Row(what=what, ours=_said(ours), peer=_said(theirs), ratio=ratio, bar=bar, spread=spread)


def _said(loads: Sequence[Load]) -> str:
    rate, cpu = (statistics.median(getattr(load, name) for load in loads) for name in ("rate", "cpu"))
    return f"{rate:,.0f}/s, {cpu * 1e6:,.0f} us"


def _said_with_clients(loads: Sequence[Load]) -> str:
    return f"{_said(loads)}, clients {statistics.median(load.clients_cpu for load in loads) * 1e6:,.0f} us"


def _request(images: str) -> pb.CreateJobRequest:
    """As `podium submit` would send it: a linear head on a ResNet-18, class folders, half top-1 and half top-5."""
    spec = JobSpec(
        backbone="resnet18",
        weights=Weights(tag="IMAGENET1K_V1"),
        head=LinearHead(),
        image_folder=ImageFolder(train=f"{images}/train", test=f"{images}/test"),
        k={1: 0.5, 5: 0.5},
        odd_even=OddEven(),
        labels={"team": "vision", "sweep": "first"},
    )
    return pb.CreateJobRequest(project=_PROJECT, spec=spec)


def _mlflow_clients(url: str) -> list[list[str]]:
    script = str(site.ROOT / "benchmarks" / "service" / "mlflow_load.py")
    return [[site.mlflow_python(), script, url, str(_MLFLOW_CLIENTS // 2), str(_SECONDS)] for _ in range(2)]
