"""A whole Podium on this machine, of real processes, for killing: a Redis, several servers, several node agents.

Every process of it has the site's own folder of artifacts in its environment, by which strays are found.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import redis

from podium.client import Client
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.delivery import queue_name
from podium.jobs.job import Job, NodeState
from podium.jobs.settings import Settings
from podium.jobs.spec import CheckpointPolicy, FullFineTuning, ImageFolder, JobSpec, Resources, Softmax
from podium.jobs.store import Archive, Leases
from podium.jobs.store.redis import RedisStore, connect
from podium.worker.processes import mark, slot_mark
from tests.chaos.script import Script
from tests.conftest import RedisServer

#: Short, so that losses are noticed soon, and long enough for two cores that are busy starting processes.
LEASES = Leases(attempt=4, starting=8, node=4, grace=20)
#: The machines and their slots: one has room for a job of two ranks, the other takes over what the first loses.
MACHINES: Mapping[str, int] = {"a": 2, "b": 1}
_ROOT = Path(__file__).parents[2]


class Timeout(AssertionError):
    """Something did not come about in time; the sentence says what."""


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Waits for a condition.

    Raises:
        Timeout: it does not hold after so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Timeout(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


class Redis(RedisServer):
    """The site's Redis."""

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Program:
    """A program that is started again with the same words after every death, as systemd would.

    Args:
        module: what `python -m` runs.
        words: its arguments.
        environment: added to this process's own.
        log: what it says.
        cwd: where it runs; Python looks for modules there first.
    """

    def __init__(
        self, module: str, words: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path = _ROOT
    ) -> None:
        self._command = [sys.executable, "-m", module, *words]
        self._environment = {**os.environ, **environment}
        self._log = log
        self._cwd = cwd
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        assert self._started is not None
        return psutil.Process(self._started.pid)

    @property
    def alive(self) -> bool:
        return self._started is not None and self._started.poll() is None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._started = subprocess.Popen(
                self._command, env=self._environment, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, seconds: float) -> None:
        """Until it has ended."""
        assert self._started is not None
        self._started.wait(seconds)


class Server(Program):
    """`python -m podium.server`, on the same address after every start."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], cwd: Path = _ROOT) -> None:
        self._port_file = folder / f"{name}.port"
        self.address = "127.0.0.1:0"
        super().__init__("podium.server", (), environment, folder / f"{name}.log", cwd)
        self._words = list(self._command)

    def start(self) -> None:
        self._port_file.unlink(missing_ok=True)
        self._command = [*self._words, "--listen", self.address, "--port-file", str(self._port_file)]
        super().start()
        until(lambda: self._port_file.exists() or not self.alive, "a server to serve")
        assert self.alive, self._log.read_text(encoding="utf-8")
        self.address = self._port_file.read_text(encoding="utf-8").strip()


class Site:
    """See the module.

    Args:
        folder: everything of it; short, as a socket's path may have 107 characters at most.
        machines: the agents and their slots.
        servers: how many.
        artifacts: where checkpoints go; None: into the folder.
        redis_url: by which the processes reach Redis; None: its socket.
        trainer: what the attempts run; None: the real one.
        leases: how long silence means nothing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        machines: Mapping[str, int] = MACHINES,
        servers: int = 2,
        artifacts: Path | None = None,
        redis_url: str | None = None,
        trainer: str | None = "tests.chaos.trainer",
        leases: Leases = LEASES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.machines = machines
        self.redis = Redis(folder)
        self.artifacts = ArtifactStore(str(artifacts or folder / "artifacts"))
        self.temporary = folder / "t"
        self.temporary.mkdir(exist_ok=True)
        self._data = _classes(folder / "data")
        url = redis_url or self.redis.url
        environment = {
            "PODIUM_REDIS_URL": url,
            "PODIUM_ARTIFACTS": str(self.artifacts.root),
            "PODIUM_DATA_ROOTS": str(folder),
            "PODIUM_LEASE_ATTEMPT": str(leases.attempt),
            "PODIUM_LEASE_STARTING": str(leases.starting),
            "PODIUM_LEASE_NODE": str(leases.node),
            "PODIUM_GRACE": str(leases.grace),
            "PODIUM_TRAINER": trainer or "",
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))),
        }
        self.servers = [Server(f"server{number}", folder, environment) for number in range(servers)]
        self.agents = {
            name: Program(
                "podium.worker", ("--node", name, "--cpu-slots", str(slots)), environment, folder / f"{name}.log"
            )
            for name, slots in machines.items()
        }
        self._settings = Settings(
            redis_url=url,
            redis_password=None,
            artifacts=str(self.artifacts.root),
            data_roots=(str(folder),),
            leases=leases,
        )
        # The harness's own way to the truth, past what may lie between Redis and the others.
        own = Settings(redis_url=self.redis.url, redis_password=None, artifacts="", data_roots=(), leases=leases)
        self.connection: redis.Redis = connect(own)
        self.store = RedisStore(self.connection, leases=leases, archive=Archive(self.artifacts))

    def __enter__(self) -> "Site":
        try:
            self.heal()
            addresses = ",".join(server.address for server in self.servers)
            self.client = Client(f"ipv4:{addresses}", patience=120)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()

    def stop(self) -> None:
        """Kills everything."""
        self.connection.close()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended for another's end
                process.kill()
        for program in (*self.servers, *self.agents.values()):
            if program.alive:
                program.process.kill()
                program.wait(10)
        self.redis.kill()

    def heal(self) -> None:
        """Starts what does not run, and returns when every machine has all its slots ready for an attempt."""
        self.restart()
        until(self.complete, "every machine to be ready")

    def restart(self) -> None:
        """Starts what does not run and is nobody else's to start."""
        if not self.redis.alive:
            self.redis.start()
        for program in (*self.servers, *self.agents.values()):
            if not program.alive:
                program.start()

    def renew_agents(self) -> None:
        """Lets the agents forget how often a supervisor has died lately, for which they start it ever later."""
        for agent in self.agents.values():
            agent.process.terminate()
        for agent in self.agents.values():
            agent.wait(60)
        self.heal()

    def complete(self) -> bool:
        """Whether every machine is there with all its slots, each with the process of an attempt, or of the next."""
        ready = {node.id: len(node.slots) for node in self.store.nodes() if node.state is NodeState.READY}
        horses = {_argument(process, 1) for process in self.processes("podium.worker.horse")}
        wanted = {self.slot_mark(node, slot) for node, slots in self.machines.items() for slot in range(slots)}
        return ready == dict(self.machines) and horses == wanted

    def submit(self, script: Script, *, gpus: int = 1, **changes: object) -> Job:
        """A job that does as scripted."""
        spec = JobSpec(
            backbone="resnet18",
            tuning=FullFineTuning(),
            dataset=ImageFolder(train=str(self._data)),
            sorter=Softmax(),
            checkpoints=CheckpointPolicy(keep_last=2),
            resources=Resources(gpus=gpus),
            display_name=str(script),
            **changes,  # type: ignore[arg-type]  # parts of a spec
        )
        return self.client.submit(spec).job()

    def scratch(self, job: Job) -> Path:
        """The folder in which a scripted job says where it is."""
        return self.artifacts.scratch_path(job.id)

    def held(self, job: Job) -> bool:
        """Whether a scripted job waits where it was told to."""
        return (self.scratch(job) / "at").exists()

    def let_go(self, job: Job) -> None:
        """Has a job that is held go on, now and whenever it comes there again."""
        with contextlib.suppress(FileNotFoundError):  # ended meanwhile, by force
            (self.scratch(job) / "go").touch()

    def handed_over(self, job: Job) -> bool:
        """Whether a job that is STARTING has left the queue of its slot."""
        attempt = self.store.get(job.id).attempts[-1]
        queue: int = self.connection.llen(f"rq:queue:{queue_name(attempt.node, attempt.slot)}")
        return queue == 0

    # Processes

    def processes(self, module: str = "") -> list[psutil.Process]:
        """The site's processes that run a module, zombies excepted; all of them where it is left out."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            try:
                ours = process.environ().get("PODIUM_ARTIFACTS") == str(self.artifacts.root)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            runs = module in (process.info["cmdline"] or ())[:4]
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE and (runs or not module):
                found.append(process)
        return found

    def of_slot(self, module: str, node: str, slot: int) -> psutil.Process:
        """The supervisor or the horse of a slot."""
        wanted = self.slot_mark(node, slot)
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [process for process in self.processes(module) if _argument(process, 1) == wanted]
            return bool(found)

        until(there, f"a {module} of slot {slot} on {node}")
        return found[0]

    def of_machine(self, node: str) -> list[psutil.Process]:
        """Everything that an agent has started."""
        own = mark(self._settings, node)
        return [process for process in self.processes() if _argument(process, 1).startswith(f"{own}:")]

    def rank(self, number: int) -> psutil.Process:
        """A rank of the only job with several."""
        found: list[psutil.Process] = []

        def there() -> bool:
            ranks = self.processes("podium.worker.rank")
            found[:] = [process for process in ranks if process.environ().get("RANK") == str(number)]
            return bool(found)

        until(there, f"rank {number}")
        return found[0]

    def leader(self) -> Server:
        """The server that dispatches."""

        def owner() -> str:
            value: bytes | None = self.connection.get("podium:leader")  # type: ignore[assignment]  # redis-py
            return (value or b"").decode()

        def leads(server: Server) -> bool:
            return server.alive and f"-{server.process.pid}-" in owner()

        until(lambda: any(map(leads, self.servers)), "a server to lead")
        return next(server for server in self.servers if leads(server))

    def slot_mark(self, node: str, slot: int) -> str:
        """The argument of the processes of a slot."""
        return slot_mark(mark(self._settings, node), slot)


def stop(process: psutil.Process) -> None:
    """SIGSTOP, and returns when it no longer runs."""
    process.send_signal(signal.SIGSTOP)
    until(lambda: process.status() == psutil.STATUS_STOPPED, "a process to stop")


def _argument(process: psutil.Process, number: int) -> str:
    """The words of `python -m MODULE WORD …`, from 1; empty where the process is gone."""
    try:
        words = process.cmdline()
        return words[words.index("-m") + 1 + number]
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return ""


def _classes(folder: Path) -> Path:
    """Images that only the server looks at, by name."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "1.png").write_bytes(b"never decoded")
    return folder
