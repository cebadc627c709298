"""The two ledgers, with a clock that tests turn and leases that run out soon."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.store import Archive, JobStore, Leases, MemoryStore
from podium.jobs.store.redis import RedisStore

LEASES = Leases(attempt=0.8, starting=0.8, node=0.8)


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


class World:
    """A ledger and the time that passes in it."""

    def __init__(self, store: JobStore, clock: Clock, *, trimming: JobStore, artifacts: ArtifactStore) -> None:
        self.store = store
        self.clock = clock
        self.trimming = trimming
        """Another one, which keeps 5 events a job."""
        self.artifacts = artifacts
        """Where both keep the history of ended jobs."""

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Lets time pass, at most seconds, until something holds."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            self.clock.advance(seconds=0.05)
            time.sleep(0.01 if isinstance(self.store, RedisStore) else 0)


@pytest.fixture
def redis_url(redis_server: Any) -> str:
    """Where no other server leads: the lasting one recovers whatever it finds on its ledger."""
    return f"{redis_server.url}?db=4"


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    clock, artifacts = Clock(), ArtifactStore(str(tmp_path / "artifacts"))
    archive = Archive(artifacts)
    ids = map("job-{:016d}".format, itertools.count())
    if request.param == "memory":
        store: JobStore = MemoryStore(clock=clock, leases=LEASES, new_id=ids.__next__, archive=archive)
        trimming: JobStore = MemoryStore(clock=clock, leases=LEASES, events_kept=5, archive=archive)
    else:
        client: redis.Redis = request.getfixturevalue("redis_client")
        store = RedisStore(client, clock=clock, leases=LEASES, new_id=ids.__next__, archive=archive)
        trimming = RedisStore(client, clock=clock, leases=LEASES, events_kept=5, prefix="trimming:", archive=archive)
    return World(store, clock, trimming=trimming, artifacts=artifacts)


@pytest.fixture
def store(world: World) -> JobStore:
    return world.store
