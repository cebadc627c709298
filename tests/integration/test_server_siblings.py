"""Several server processes on one port."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from click.testing import CliRunner

from podium.api.v1 import server_service_pb2 as server_api
from podium.server.__main__ import main
from podium.server.siblings import Siblings
from tests.integration.conftest import ServerProcess


def children(server: ServerProcess) -> list[psutil.Process]:
    return psutil.Process(server._process.pid).children()


def callers(process: psutil.Process) -> int:
    """How many connections of callers a process has."""
    return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))


def ask(server: ServerProcess) -> None:
    server.catalogue.GetServerInfo(server_api.GetServerInfoRequest(), timeout=20, wait_for_ready=True)


def test_two_processes_share_callers_and_a_leader_and_one_that_dies_is_replaced(new_server, eventually):
    server = new_server("--processes", "2", "--metrics-listen", "127.0.0.1:0")
    first, second = children(server)

    # The kernel deals them out by their port; that all 40 went to one of the two is as likely as 2 in 2**40.
    for _ in range(40):
        ask(server)
    assert callers(first) + callers(second) == 40
    assert callers(first) > 0 < callers(second)
    eventually(lambda: server.log().count(" leads\n") == 1)

    first.kill()
    ask(server)
    eventually(lambda: len(children(server)) == 2 and first not in children(server))
    eventually(lambda: server.log().count(f"serving on {server.address}\n") == 3, 30)

    family = children(server)
    server.terminate()
    assert 0 == server.wait()
    assert not any(process.is_running() for process in family)
    # All were asked to end, and did so in good order; only the one that was killed had no time to say so.
    assert 2 == server.log().count(" stopped\n")


def test_they_end_with_the_process_that_started_them_whatever_became_of_it(new_server, eventually):
    server = new_server("--processes", "2")
    family = children(server)
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()

    eventually(lambda: not any(process.is_running() for process in family))


def test_one_that_hangs_keeps_the_others_from_ending_for_a_while_only(
    redis_url, artifacts_root, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("PODIUM_REDIS_URL", f"{redis_url}?db=1")
    monkeypatch.setenv("PODIUM_ARTIFACTS", str(artifacts_root))
    served = tmp_path / "address"
    siblings = Siblings(1, listen="127.0.0.1:0", options=(), port_file=served, metrics_listen=None, patience=0.2)

    async def scenario() -> int:
        running = asyncio.create_task(siblings.run())
        while not served.exists():
            assert not running.done()
            await asyncio.sleep(0.02)
        (child,) = [one for one in psutil.Process().children() if "--sibling" in one.cmdline()]
        child.suspend()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            return await running

    assert 0 == asyncio.run(scenario())
    assert "does not stop and is killed" in caplog.text


def refused(*options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "podium.server", "--processes", "2", *options]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def test_what_is_wrong_with_the_settings_is_said_once(artifacts_root):
    ended = refused("--listen", "127.0.0.1:0", PODIUM_ARTIFACTS=str(artifacts_root), PODIUM_GRACE="soon")

    assert 2 == ended.returncode
    assert 1 == ended.stderr.count("PODIUM_GRACE='soon' is not a number of seconds")


def test_a_port_that_others_have_and_a_unix_socket_are_refused(tmp_path):

    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        assert f"cannot listen on {taken}; choose a free port with --listen" in refused("--listen", taken).stderr
    assert "write HOST:PORT" in refused("--listen", f"unix:{tmp_path}/s").stderr


@pytest.mark.parametrize("listen", ["50051", ":50051", "localhost:x", "localhost:65536", "localhost:-1"])
def test_an_address_that_is_none_is_told_so_and_no_other_port_is_taken(listen):
    ended = CliRunner().invoke(main, ["--listen", listen])

    assert 2 == ended.exit_code
    assert f"{listen!r}: write HOST:PORT, such as 127.0.0.1:50051" in ended.output
