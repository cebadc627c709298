"""A Redis that is full is freed by the histories of ended jobs, with nobody's help."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import UnavailableError
from podium.jobs.events import LogBatch, LogLine
from podium.jobs.states import State
from podium.jobs.store import Archive, Leases
from podium.jobs.store.redis import RedisStore
from podium.server.dispatcher import (
    Archiver,
    Dispatcher,
    Leader,
    Reconciler,
    RqDelivery,
    Sharing,
    Snapshots,
    Upkeep,
)
from tests.contract.plays import history, start, submit

_MIB = 1 << 20


@pytest.fixture
def redis_url(redis_server) -> str:
    """Where no other server leads."""
    return f"{redis_server.url}?db=5"


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path))


@pytest.fixture
def ledger(redis_client: redis.Redis, artifacts: ArtifactStore) -> Iterator[RedisStore]:
    """The ledger, on a Redis that may get full."""
    yield RedisStore(redis_client, archive=Archive(artifacts))
    redis_client.config_set("maxmemory", 0)


@pytest.fixture
def leader(redis_client: redis.Redis, ledger: RedisStore, artifacts: ArtifactStore) -> Iterator[Leader]:
    """A server's leader, which archives what has ended at once."""
    snapshots = Snapshots(ledger, Leases(), Sharing())
    archiver = Archiver(ledger, artifacts, after=0)
    leader = Leader(
        ledger,
        Dispatcher(ledger, RqDelivery(redis_client), snapshots),
        Reconciler(ledger, snapshots, Leases()),
        owner="test",
        upkeep=Upkeep({"archiving": archiver.archive}, every=0),
    )
    yield leader
    leader.stop()


def accepts(store: RedisStore) -> bool:
    try:
        submit(store)
    except UnavailableError:
        return False
    return True


def test_a_full_redis_takes_jobs_again_once_the_history_of_ended_ones_has_moved_out(
    redis_client, ledger, leader, artifacts, eventually
):
    assignment = start(ledger)
    for batch in range(1, 5):
        ledger.append(assignment, batch, [LogBatch(lines=(LogLine(text="x" * _MIB),))])
    ledger.finish(assignment, State.SUCCEEDED, reason="done")
    before = history(ledger, assignment.job_id)
    redis_client.config_set("maxmemory", redis_client.info("memory")["used_memory"] - 2 * _MIB)
    assert not accepts(ledger)
    leader.start()

    eventually(lambda: accepts(ledger))
    assert [] == redis_client.keys(f"podium:job:{assignment.job_id}:*")
    assert before == history(ledger, assignment.job_id)
    eventually(lambda: leader.leads)
