"""Neighbouring releases work together: servers, workers and clients of the last one, and of this one, for real."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podium.jobs.artifacts import ArtifactStore
from podium.jobs.job import NodeState
from podium.jobs.settings import Settings
from podium.jobs.store import Archive, Leases
from podium.jobs.store.redis import RedisStore, connect
from tests.chaos.site import Program, Redis, Server, until
from tests.skew import release

pytestmark = pytest.mark.skipif(
    not release.there(), reason=f"the last release is taken from the git history, and {release.COMMIT} is not in it"
)
_NODE = "a"


class Pool:
    """A Redis, a server and a worker, each of which may be of either release.

    Args:
        folder: everything of it.
        old: the last release's source.
    """

    def __init__(self, folder: Path, old: Path) -> None:
        self._folder = folder
        self._roots = {"old": old, "new": release.HERE}
        self.train = folder / "data"
        for name in ("x", "y"):
            (self.train / name).mkdir(parents=True)
            (self.train / name / "1.png").write_bytes(b"never decoded by the scripted trainer")
        self.redis = Redis(folder)
        self._artifacts = ArtifactStore(str(folder / "artifacts"))
        self._server: Server | None = None
        self._worker: Program | None = None
        self._served_by = self._worked_by = ""

    def _environment(self, release_: str) -> dict[str, str]:
        return {
            "PODIUM_REDIS_URL": self.redis.url,
            "PODIUM_ARTIFACTS": str(self._artifacts.root),
            "PODIUM_DATA_ROOTS": str(self._folder),
            "PODIUM_TRAINER": "tests.chaos.trainer",
            "PYTHONPATH": release.import_path(self._roots[release_]),
        }

    def serve(self, release_: str) -> None:
        """Has a server of a release serve, in the place of another."""
        if release_ == self._served_by:
            return
        _end(self._server)
        self._server = Server(release_, self._folder, self._environment(release_), self._roots[release_])
        self._server.start()
        self._served_by = release_

    def work(self, release_: str) -> None:
        """Has a worker of a release work, in the place of another."""
        if release_ == self._worked_by:
            return
        _end(self._worker)
        words = ("--node", _NODE, "--cpu-slots", "1")
        log = self._folder / f"{release_}-worker.log"
        self._worker = Program("podium.worker", words, self._environment(release_), log, self._roots[release_])
        self._worker.start()
        self._worked_by = release_
        with self.store() as store:
            until(lambda: [NodeState.READY] == [node.state for node in store.nodes()], "the machine to be ready")

    def use(self, release_: str, other: str = "") -> dict[str, Any]:
        """What a user sees with a client of a release."""
        assert self._server is not None
        answer = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("user.py")), self._server.address, str(self.train), other],
            env={**os.environ, "PYTHONPATH": release.import_path(self._roots[release_])},
            cwd=self._roots[release_],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert answer.returncode == 0, answer.stderr
        seen: dict[str, Any] = json.loads(answer.stdout)
        assert Path(seen.pop("module")).is_relative_to(self._roots[release_])
        return seen

    @contextlib.contextmanager
    def store(self) -> Iterator[RedisStore]:
        """The ledger, as this release sees it."""
        settings = Settings(redis_url=self.redis.url, redis_password=None, artifacts="", data_roots=(), leases=Leases())
        with connect(settings) as client:
            yield RedisStore(client, archive=Archive(self._artifacts))

    def stop(self) -> None:
        """Ends everything."""
        _end(self._worker)
        _end(self._server)
        self.redis.kill()


def _end(program: Program | None) -> None:
    if program is not None and program.alive:
        program.process.send_signal(signal.SIGTERM)
        program.wait(60)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool = Pool(tmp_path_factory.mktemp("k"), release.unpack(tmp_path_factory.mktemp("old")))
    pool.redis.start()
    yield pool
    pool.stop()


def test_an_upgrade_in_the_order_that_the_documentation_says_and_one_step_of_the_way_back(pool):
    """One test, as each step stands on the ledger that the former left."""
    everything = {
        "state": "SUCCEEDED",
        "gapless": True,
        "checkpoints": [3, 6],
        "listed": True,
        "last step": 6,
        "cancelled": "CANCELLED",
        "nodes": [_NODE],
        "missing": "JOB_NOT_FOUND",
    }
    job, others = "", []
    for server, worker, client in [
        ("old", "old", "new"),
        ("new", "old", "old"),
        ("new", "new", "old"),
        ("old", "new", "new"),
    ]:
        pool.serve(server)
        pool.work(worker)
        seen = pool.use(client, job)
        others.append(seen.pop("other"))
        job = seen.pop("job")

        assert everything == seen, f"server {server}, worker {worker}, client {client}"
    assert ["", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"] == others
