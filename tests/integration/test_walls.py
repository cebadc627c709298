"""A whole site behind its walls: Redis over TLS, users with few rights, secrets in files; and an attacker in it."""

import os
import pickle
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from rq import Callback, Queue

from podium.api.v1 import job_service_pb2, job_service_pb2_grpc
from podium.jobs.delivery import FUNCTION, queue_name
from podium.jobs.events import LogBatch, LogLine, MetricBatch
from podium.jobs.job import Cause, Job, Progress
from podium.jobs.states import State
from podium.jobs.store.redis import RedisStore
from tests.certificates import Authority
from tests.conftest import RedisServer
from tests.contract.plays import checkpoint_of, machine, submit
from tests.encrypted import encrypted
from tests.integration.conftest import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
USERS = ROOT / "deploy" / "redis" / "users.conf"
NAME = {"server": "podium-server", "worker": "podium-worker"}
#: All programs that there are while a job runs; of ranks, tests/integration/worker/test_ranks.py tells the same.
PROGRAMS = {"server", "worker", "worker.slot", "worker.horse"}


@dataclass(kw_only=True)
class Site:
    ledger: RedisServer
    server: ServerProcess
    log: Path
    marks: dict[str, str]
    """The passwords of server and worker, which stand nowhere else."""
    url: str

    @property
    def admin(self) -> redis.Redis:
        return redis.Redis.from_url(self.ledger.url)

    @property
    def store(self) -> RedisStore:
        return RedisStore(self.admin)

    def as_(self, who: str, db: int = 0) -> redis.Redis:
        """What somebody can do who has got hold of a password."""
        url = f"{self.ledger.url}?db={db}"
        return redis.Redis.from_url(url, username=NAME[who], password=self.marks[who], driver_info=None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("w")
    marks = {who: f"marked-{secrets.token_hex(8)}" for who in NAME}
    config = folder / "redis.conf"
    lines = USERS.read_text()
    for who, mark in marks.items():
        (folder / who).write_text(f"{mark}\n")
        (folder / who).chmod({"server": 0o640, "worker": 0o644}[who])
        digest = sha256(mark.encode()).hexdigest()
        lines = lines.replace(f"user {NAME[who]} on PASSWORD", f"user {NAME[who]} on #{digest}")
    config.write_text(lines)
    ledger = RedisServer(folder, config)
    ledger.start()
    authority = Authority(folder / "tls")
    with encrypted(f"{folder}/redis.sock", authority.sign("redis", "127.0.0.1")) as port:

        def environment(who: str) -> dict[str, str]:
            return {
                "PODIUM_REDIS_URL": f"rediss://{NAME[who]}@127.0.0.1:{port}/0",
                "PODIUM_REDIS_PASSWORD_FILE": str(folder / who),
                "PODIUM_REDIS_TLS_CA": str(authority.ca),
                "PODIUM_ARTIFACTS": str(folder / "artifacts"),
                "PODIUM_DATA_ROOTS": str(data_root),
                "PODIUM_TRAINER": "tests.chaos.trainer",
                "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            }

        (folder / "server-files").mkdir()
        server = ServerProcess(folder / "server-files", environment("server"))
        server.start()
        log = folder / "worker.log"
        command = [sys.executable, "-m", "podium.worker", "--node", "here", "--cpu-slots", "1"]
        with log.open("ab") as output:
            agent = subprocess.Popen(command, env={**os.environ, **environment("worker")}, stdout=output, stderr=output)
        yield Site(ledger=ledger, server=server, log=log, marks=marks, url=server.address)
        agent.terminate()
        agent.wait(60)
        server.stop()
    ledger.kill()


def ended(site: Site, job_id: str, each: Any = lambda: None) -> Job:
    """The job, once it has ended."""
    deadline = time.monotonic() + 120
    while not (job := site.store.get(job_id)).terminal:
        assert time.monotonic() < deadline, f"{job}\n{site.log.read_text()}\n{site.server.log()}"
        each()
        time.sleep(0.1)
    return job


def test_a_password_that_everybody_may_read_is_told_of_at_the_start_and_one_for_a_group_is_not(site, eventually):
    told = "PODIUM_REDIS_PASSWORD_FILE: others than its owner may read or write"

    eventually(lambda: site.store.nodes())
    assert 1 == site.log.read_text().count(told)
    assert "chmod 600" in site.log.read_text()
    assert told not in site.server.log()


def submitted(site: Site, request: job_service_pb2.CreateJobRequest) -> str:
    jobs = job_service_pb2_grpc.JobServiceStub(site.server.channel())
    return str(jobs.CreateJob(request, timeout=20).job.id)


def test_a_job_runs_with_the_least_rights_and_no_password_is_to_be_seen_anywhere(site, request_for):
    seen: dict[str, str] = {}

    def look() -> None:
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if found := re.search(r"podium\.(server|worker[a-z.]*)\b", words):
                seen[found[1]] = seen.get(found[1], "") + words

    job_id = submitted(site, request_for(display_name="steps 20, pause 0.02, save 10"))
    job = ended(site, job_id, look)

    assert (State.SUCCEEDED, None) == (job.state, job.error)
    assert PROGRAMS <= seen.keys()
    everything = [*seen.values(), site.log.read_text(), site.server.log(), repr(job)]
    everything += [path.read_bytes().decode(errors="replace") for path in site.ledger.directory.glob("*aof*")]
    for mark in site.marks.values():
        assert [] == [text for text in everything if mark in text]
    assert any(job_id in text for text in everything[len(seen) + 3 :])
    # And no program was refused anything that it wanted.
    refused = [(entry["username"], entry["object"], entry["client-info"].get("cmd")) for entry in site.admin.acl_log()]
    assert [] == refused


def test_all_that_a_worker_asks_of_the_ledger_is_within_its_rights(site):
    # On another database, where no server leads.
    with site.as_("server", 5) as server, site.as_("worker", 5) as worker:
        desk, ledger = RedisStore(server), RedisStore(worker)
        machine(ledger, "n1")
        first = desk.dispatch(submit(desk).id, "n1", 0)
        ledger.begin(first, rendezvous="n1:1")
        ledger.renew(first)
        assert "n1:1" == ledger.rendezvous(first)
        ledger.append(first, 1, [MetricBatch.at(1, {"loss": 1.0}), LogBatch(lines=(LogLine(text="a"),))])
        ledger.append(first, 2, [Progress(phase="train", step=1)])
        for name, step in (("a", 1), ("b", 2)):
            ledger.commit_checkpoint(first, checkpoint_of(first, name, step, best=True))
        ledger.forget_checkpoint(first, "ckpt-a")
        assert "ckpt-b" == ledger.checkpoint("ckpt-b").id
        assert 1 == len(ledger.checkpoints(first.job_id))
        assert [first.job_id] == list(ledger.jobs_on("n1")) == [job.id for job, *_ in ledger.holding()]
        ledger.recover(first, "the device fell off", cause=Cause.NODE_LOST, faulty="n1")
        again = desk.dispatch(first.job_id, "n1", 0)
        ledger.begin(again)
        ledger.finish(again, State.SUCCEEDED, reason="done")
        ledger.recover(
            desk.dispatch(submit(desk, stall_timeout_seconds=60).id, "n1", 1), "no step", cause=Cause.STALLED
        )
        ledger.remove_node("n1")
        assert [State.SUCCEEDED] == [ledger.get(first.job_id).state]


@pytest.mark.parametrize(
    ("who", "command"),
    [
        *((who, word) for who in NAME for word in ("FLUSHALL", "CONFIG GET *", "KEYS *", "ACL LIST", "SHUTDOWN")),
        *((who, word) for who in NAME for word in ("DEBUG SLEEP 0", "MODULE LIST", "REPLICAOF NO ONE", "GET other")),
        # They tell of keys that the user may not read, or put keys where others look.
        *((who, word) for who in NAME for word in ("SCAN 0", "RANDOMKEY", "MOVE podium:job:1 2")),
        *(("worker", f"EXISTS podium:{key}") for key in ("tokens", "audit", "leader", "usage", "request:p:1")),
        ("worker", "SUBSCRIBE podium:another"),
    ],
)
def test_who_has_a_password_cannot_do_what_its_programs_need_not(site, who, command):
    with site.as_(who) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())
    site.admin.acl_log_reset()


def test_nothing_but_an_attempt_is_ever_run_whatever_a_queue_holds(site, request_for, tmp_path):
    witness = tmp_path / "it-ran"
    touch = f"touch {witness}"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (touch,)

    with site.as_("worker") as client:
        queue = Queue(queue_name("here", 0), connection=client, serializer="json")
        queue.enqueue_call("os.system", args=(touch,))
        queue.enqueue_call("builtins.eval", args=(f"__import__('os').system({touch!r})",))
        queue.enqueue_call("subprocess.check_call", kwargs={"args": ["touch", str(witness)]})
        queue.enqueue_call("podium.worker.processes.kill", args=([],))
        queue.enqueue_call(FUNCTION, kwargs={"job_id": "x", "attempt": 1, "fence": 1, "mark": "y"})
        queue.enqueue_call("os.system", kwargs={"job_id": touch, "attempt": 1, "fence": 1})
        queue.enqueue_call("os.getcwd", on_success=Callback("os.getcwd"), description=touch)
        pickled = queue.enqueue_call("os.getcwd")
        client.hset(pickled.key, "data", pickle.dumps(Bomb()))
        Queue(queue_name("here", 0), connection=client).enqueue_call(print, args=(Bomb(),))
    # The queue is read in order, so when this has ended, all of these are behind it.
    job = ended(site, submitted(site, request_for(display_name="steps 2")))

    assert State.SUCCEEDED == job.state
    assert not witness.exists()
    assert 9 == site.log.read_text().count("refused: ")
