"""Two projects of equal weight on 8 slots, one with ten times the jobs: what each gets while both have work.

The dispatcher and the ledger in Redis are real; attempts and the time that passes are simulated.
"""

import random
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.rows import Row
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.settings import Settings
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Resources
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, Leases, NewJob
from podium.jobs.store.redis import RedisStore, connect
from podium.server.dispatcher import Dispatcher, Sharing, Snapshots
from tests.conftest import RedisServer

_TICK = 5.0
_JOBS = {"many": 600, "few": 60}
_LEASES = Leases(node=1e6, attempt=1e6, starting=1e6)
_SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def measure() -> list[Row]:
    """The row."""
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            settings = Settings(redis_url=server.url, redis_password=None, artifacts="", data_roots=(), leases=_LEASES)
            with connect(settings) as client:
                world = _World(client)
                return [world.run()]
        finally:
            server.kill()


class _World:
    """A pool of two machines whose jobs take from 1 to 10 minutes and 1 or 2 slots."""

    def __init__(self, client: object) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self._chance = random.Random(0)
        self._store: JobStore = RedisStore(client, clock=self._time, leases=_LEASES)  # type: ignore[arg-type]  # redis-py's
        self._dispatcher = Dispatcher(self._store, self, Snapshots(self._store, _LEASES, Sharing(), self._time))
        self._begun: list[Assignment] = []
        self._running: dict[str, tuple[datetime, Assignment, str, int]] = {}
        self.used: Counter[str] = Counter()

    def _time(self) -> datetime:
        return self.now

    def deliver(self, assignment: Assignment, node: str, slot: int) -> None:
        """See podium.server.dispatcher.Delivery."""
        self._begun.append(assignment)

    def run(self) -> Row:
        """Until the smaller project has nothing in line any more."""
        for name in ("a", "b"):
            slots = tuple(Slot(index=index) for index in range(4))
            self._store.heartbeat(Node(id=name, pool="default", state=NodeState.READY, slots=slots))
        waits = Counter(_JOBS)
        for project, count in _JOBS.items():
            for _ in range(count):
                self._submit(project)
        while waits["few"] > 0:
            self._dispatcher.dispatch()
            waits.subtract(self._begin())
            for _, _, project, held in self._running.values():
                self.used[project] += held * int(_TICK)
            self.now += timedelta(seconds=_TICK)
            self._end()
        many, few = self.used["many"], self.used["few"]
        return Row(
            what="slot-seconds of two equal projects while both have jobs in line, one with 10 times the jobs",
            ours=f"{many:,}",
            peer=f"{few:,}",
            ratio=max(many, few) / min(many, few),
            bar="<= 1.1",
        )

    def _submit(self, project: str) -> None:
        resources = Resources(gpus=self._chance.choice([1, 1, 2]))
        self._store.create(NewJob(project=project, spec=replace(_SPEC, resources=resources), classes=("a", "b")))

    def _begin(self) -> Counter[str]:
        """Who has started."""
        started: Counter[str] = Counter()
        for assignment in self._begun:
            job = self._store.begin(assignment)
            end = self.now + timedelta(seconds=self._chance.uniform(60, 600))
            self._running[job.id] = end, assignment, job.project, job.spec.resources.slots
            started[job.project] += 1
        self._begun = []
        return started

    def _end(self) -> None:
        for job_id, (end, assignment, _, _) in list(self._running.items()):
            if end <= self.now:
                self._store.finish(assignment, State.SUCCEEDED, reason="done")
                del self._running[job_id]
