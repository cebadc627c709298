"""The row of CreateJob counts jobs that are in the ledger, not answers."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from benchmarks.service.rows.create import create
from benchmarks.service.site import Serving, Site
from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.store import NewJob
from podium.jobs.store.redis import RedisStore

_SPEC = JobSpec(backbone="resnet18", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


@pytest.fixture
def site(redis_client: Any, redis_server: Any, tmp_path: Path) -> Iterator[Callable[[int], Site]]:
    """Makes a site whose server answers every call and writes one job for each, but for one call so many."""
    store, server = RedisStore(redis_client), grpc.server(ThreadPoolExecutor(4))

    def make(odd: int) -> Site:
        jobs = itertools.chain(itertools.repeat(1, 20), [odd], itertools.repeat(1))

        def answer(request: CreateJobRequest, context: Any) -> bytes:
            for _ in range(next(jobs)):
                store.create(NewJob(project=request.project, spec=_SPEC, classes=()))
            return b""

        handler: grpc.RpcMethodHandler[CreateJobRequest, bytes] = grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=CreateJobRequest.FromString
        )
        name = "podium.api.v1.JobService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"CreateJob": handler}),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        serving = Serving(address=address, process=psutil.Process(), log=tmp_path)
        return Site(folder=tmp_path, server=serving, redis=redis_server, store=store, images=tmp_path)

    yield make
    server.stop(None).wait()


@pytest.mark.parametrize(("odd", "more"), [(0, -1), (2, 1)])
def test_a_row_whose_clients_were_told_of_other_jobs_than_the_ledger_has_is_refused(site, redis_client, odd, more):
    with pytest.raises(RuntimeError, match="calls were answered, and the ledger has") as caught:
        create(site(odd), seconds=0.1)

    answered, made = (int(word.replace(",", "")) for word in str(caught.value).split() if word[0].isdigit())
    assert more == made - answered
    assert made == redis_client.zcard("podium:jobs:vision")


def test_a_row_counts_its_own_jobs_alone(site, redis_client):
    own = site(1)
    own.store.create(NewJob(project="vision", spec=_SPEC, classes=()))
    load = create(own, seconds=0.1)

    # Each of the 32 clients made one before it was measured.
    assert load.calls + 32 + 1 == redis_client.zcard("podium:jobs:vision")
