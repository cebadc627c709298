"""A server with a Redis of its own, a few jobs to talk about, and a look at what hostile calls leave behind in it."""

import itertools
import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import psutil
import redis
from google.protobuf import json_format

from podium.api.v1 import job_service_pb2 as api
from podium.api.v1 import job_service_pb2_grpc
from podium.jobs.settings import Settings
from podium.jobs.store import Leases
from podium.jobs.store.redis import RedisStore, connect
from tests.chaos.site import Redis, Server

#: The node that plays a worker.
NODE = "played"
_TRACEBACK = re.compile(r"^Traceback|Unexpected \[|a fault of ours", re.MULTILINE)
#: Larger than any test or campaign asks for, so that what is tested is not the limit.
_UNLIMITED = {"PODIUM_CALLS_PER_SECOND": "0", "PODIUM_STREAMS_PER_CALLER": "0"}


class Site:
    """See the module.

    Args:
        folder: everything of it; its path is short, as that of a socket must be.
        limited: whether the server has its usual limits for each caller.
    """

    def __init__(self, folder: Path, *, limited: bool = False) -> None:
        self._folder = folder
        self.data = folder / "data"
        for split in ("train", "test"):
            for number in range(12):
                (self.data / split / f"class{number:02}").mkdir(parents=True)
                (self.data / split / f"class{number:02}" / "1.png").write_bytes(b"never decoded by the server")
        secret_file = folder / "admin"
        self.secret = secrets.token_hex(32)
        secret_file.write_text(self.secret, encoding="utf-8")
        secret_file.chmod(0o600)
        self.redis = Redis(folder)
        environment = {
            "PODIUM_REDIS_URL": self.redis.url,
            "PODIUM_ARTIFACTS": str(folder / "artifacts"),
            "PODIUM_DATA_ROOTS": str(self.data),
            "PODIUM_ADMIN_TOKEN_FILE": str(secret_file),
            **({} if limited else _UNLIMITED),
        }
        self.server = Server("server", folder, environment)
        self._slots = itertools.count()
        self._submitted: set[str] = set()

    def __enter__(self) -> "Site":
        self.redis.start()
        self.server.start()
        settings = Settings(redis_url=self.redis.url, redis_password=None, artifacts="", data_roots=(), leases=Leases())
        self.connection: redis.Redis = connect(settings)
        self.channel = self.new_channel()
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.spec = self._good_spec()
        self._witness = self.submit()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()
        self.connection.close()
        if self.server.alive:
            self.server.process.kill()
            self.server.wait(10)
        self.redis.kill()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a good caller shows."""
        return (("authorization", f"Bearer {self.secret}"),)

    def new_channel(self) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(self.server.address, options=[("grpc.use_local_subchannel_pool", 1)])

    def submit(self) -> str:
        """A good job's id."""
        answer = self.jobs.CreateJob(api.CreateJobRequest(spec=self.spec), timeout=60, metadata=self.metadata)
        job_id: str = answer.job.id
        self._submitted.add(job_id)
        return job_id

    def running(self) -> str:
        """The id of a new job that runs, as far as the ledger knows."""
        store, job_id = RedisStore(self.connection), self.submit()
        store.begin(store.dispatch(job_id, NODE, next(self._slots)))
        return job_id

    def get(self, channel: grpc.Channel, seconds: float = 10.0) -> None:
        """Asks for a job as a good caller does."""
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        stub.GetJob(api.GetJobRequest(job_id=self._witness), timeout=seconds, metadata=self.metadata)

    def serves(self) -> bool:
        """Whether a caller with a connection of its own is answered in time."""
        with self.new_channel() as channel:
            try:
                self.get(channel)
            except grpc.RpcError:
                return False
        return self.server.alive

    def faults(self) -> list[str]:
        """Lines of the server's log that no caller may cause."""
        log = (self._folder / "server.log").read_text(encoding="utf-8", errors="replace")
        return [line for line in log.splitlines() if _TRACEBACK.search(line)]

    def strangers(self, created: set[str]) -> set[str]:
        """The ids of jobs in Redis that neither the site nor these calls created."""
        found = {key.decode().split(":")[2] for key in self.connection.scan_iter("podium:job:*", count=1000)}
        return found - created - self._submitted

    @property
    def memory(self) -> float:
        """What the server holds, in MiB."""
        return float(self.server.process.memory_info().rss) / (1 << 20)

    @property
    def descriptors(self) -> int:
        """Files and connections that the server has open."""
        return int(psutil.Process(self.server.process.pid).num_fds())

    def _good_spec(self) -> Any:
        spec = {
            "backbone": "resnet18",
            "weights": {"tag": "IMAGENET1K_V1"},
            "head": {},
            "image_folder": {"train": str(self.data / "train"), "test": str(self.data / "test")},
            "k": {"1": 0.5, "5": 0.5},
            "odd_even": {},
        }
        return json_format.ParseDict({"spec": spec}, api.CreateJobRequest()).spec
