"""What a server does to its own process so that calls come first, as seen in the process itself while it serves."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from podium.api.v1.checkpoint_service_pb2 import ListCheckpointsRequest
from podium.api.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from podium.api.v1.job_service_pb2_grpc import JobServiceStub
from tests.conftest import RedisServer

#: `python -m podium.server`, which says how its process stands as soon as it serves, and then is asked to end.
_TELLING = """
import asyncio, gc, json, logging, os, resource, signal, sys

class Telling(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("serving on "):
            loop = type(asyncio.get_running_loop())
            facts = {"loop": loop.__module__, "switch": sys.getswitchinterval(), "frozen": gc.get_freeze_count()}
            facts["files"] = resource.getrlimit(resource.RLIMIT_NOFILE)
            print(json.dumps(facts), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

logging.getLogger("podium.server.app").addHandler(Telling())
from podium.server.__main__ import main
main(["--listen", "127.0.0.1:0"])
"""

#: The same with disks that hang for whoever looks at a dataset or lists checkpoints, and says so.
_HANGING = """
import sys, threading
from podium.server.admission._paths import Places
from podium.server.services.checkpoints import Checkpoints

def hang(*arguments):
    print("hangs", flush=True)
    threading.Event().wait()

Places.check_path = Checkpoints.list = hang
from podium.server.__main__ import main
main(["--listen", "127.0.0.1:0", "--port-file", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def told(_redis_process: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the process of a server stands."""
    root: Path = tmp_path_factory.mktemp("process")
    environment = {
        "PODIUM_REDIS_URL": f"{_redis_process.url}?db=5",
        "PODIUM_ARTIFACTS": str(root),
        "PODIUM_DATA_ROOTS": str(root),
    }
    command = ["sh", "-c", 'ulimit -S -n 512; exec "$@"', "sh", sys.executable, "-c", _TELLING]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_its_event_loop_is_uvloops(told):
    assert "uvloop" == told["loop"]


def test_a_thread_that_computes_gives_the_interpreter_back_within_half_a_millisecond(told):
    assert told["switch"] <= 0.0005


def test_the_garbage_collector_no_longer_looks_at_what_is_there_for_good(told):
    # All that it has imported, not what was made since.
    assert told["frozen"] > 10_000


def test_it_ends_when_it_is_asked_to_though_disks_hang_for_all_of_its_threads(
    redis_url, tmp_path, request_for, eventually
):
    environment = {
        "PODIUM_REDIS_URL": f"{redis_url}?db=5",
        "PODIUM_ARTIFACTS": str(tmp_path),
        "PODIUM_DATA_ROOTS": str(tmp_path),
    }
    address, said = tmp_path / "address", tmp_path / "said"
    command = [sys.executable, "-c", _HANGING, str(address)]
    with said.open("w") as file, subprocess.Popen(command, env={**os.environ, **environment}, stdout=file) as server:
        try:
            eventually(address.exists)
            with grpc.insecure_channel(address.read_text().strip()) as channel:
                calls: list[Any] = [JobServiceStub(channel).CreateJob.future(request_for())]
                listed = CheckpointServiceStub(channel).ListCheckpoints
                calls += [listed.future(ListCheckpointsRequest(job_id="job"), timeout=20) for _ in range(32)]
                eventually(lambda: said.read_text().count("hangs") == len(calls), 20)
            server.send_signal(signal.SIGTERM)
            assert 0 == server.wait(timeout=20)
        finally:
            server.kill()


def test_it_may_open_as_many_files_as_the_system_lets_it_up_to_65536(told):
    soft, hard = told["files"]

    assert soft == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
