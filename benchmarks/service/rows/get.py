"""GetJob from one client, of a job that runs and of one in line, against an echo of the answer."""

import statistics
from functools import partial

import grpc

from benchmarks.rows import Row, ratios, turns
from benchmarks.service import site
from benchmarks.service.load import Load, put
from podium.api.v1 import job_service_pb2 as pb
from podium.api.v1.job_service_pb2_grpc import JobServiceStub
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.store import NewJob

_SECONDS = 3.0
_SPEC = JobSpec(backbone="resnet18", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def measure(count: int) -> list[Row]:
    """The rows.

    Args:
        count: turns that a median is of.
    """
    with site.podium() as ours, site.echo("--redis-url", ours.redis.url) as echo, site.echo("--uvloop") as quick:
        jobs = _jobs(ours)
        answer = _answer(ours, jobs["that runs"])

        def get(job_id: str) -> Load:
            request = pb.GetJobRequest(job_id=job_id).SerializeToString()
            return put(ours.server, "/podium.api.v1.JobService/GetJob", request, clients=1, seconds=_SECONDS)

        def echoed(by: site.Serving, method: str) -> Load:
            return put(by, f"/benchmarks.Echo/{method}", answer, clients=1, seconds=_SECONDS)

        *found, limit, quickest, asking = turns(
            count,
            *(partial(get, job_id) for job_id in jobs.values()),
            partial(echoed, echo, "GetJob"),
            partial(echoed, quick, "GetJob"),
            partial(echoed, echo, "GetJobOfRedis"),
        )
    rows = []
    for what, loads in zip(jobs, found, strict=True):
        rows.append(_row(f"GetJob of a job {what}, 1 client, p50", loads, "an echo of the answer", limit, "<= 1.5"))
    for peer, loads in (
        ("the echo on uvloop, as the server is", quickest),
        ("the echo, after one HMGET by redis-py's asyncio", asking),
    ):
        rows.append(_row("GetJob of a job that runs, 1 client, p50", found[0], peer, loads, ""))
    return rows


def _row(what: str, ours: list[Load], peer: str, theirs: list[Load], bar: str) -> Row:
    ratio, spread = ratios([load.p50 for load in ours], [load.p50 for load in theirs])
    return Row(what=what, ours=_said(ours), peer=f"{peer}: {_said(theirs)}", ratio=ratio, bar=bar, spread=spread)


def _said(loads: list[Load]) -> str:
    p50, cpu = (statistics.median(getattr(load, name) for load in loads) * 1e6 for name in ("p50", "cpu"))
    return f"{p50:,.0f} us, of CPU {cpu:,.0f}"


def _jobs(ours: site.Site) -> dict[str, str]:
    """One that runs on the only slot, and one that waits for it."""
    running, waiting = (
        ours.store.create(NewJob(project="vision", spec=_SPEC, classes=("cat", "dog")))[0].id for _ in range(2)
    )
    ours.store.begin(ours.store.dispatch(running, "n1", 0))
    # Not before the slot is taken, which the server's leader would give away.
    slots = (Slot(index=0, model="cpu"),)
    ours.store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=slots))
    return {"that runs": running, "in line": waiting}


def _answer(ours: site.Site, job_id: str) -> bytes:
    with grpc.insecure_channel(ours.server.address) as channel:
        answer: bytes = JobServiceStub(channel).GetJob(pb.GetJobRequest(job_id=job_id), timeout=20).SerializeToString()
        return answer
