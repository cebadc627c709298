"""The systemd units and the Slurm pilot fit the programs that they start."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from podium.jobs.job import NodeState
from podium.jobs.settings import from_environment
from podium.jobs.store import Leases
from podium.jobs.store.redis import RedisStore
from podium.server.__main__ import main as server_command
from podium.server.app import Options
from podium.worker.__main__ import _parse as parse_worker

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "deploy" / "systemd"
PILOT = ROOT / "deploy" / "slurm" / "pilot.sh"


def service(name: str, section: str = "Service") -> dict[str, str]:
    """A section of a unit."""
    unit = ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case of names
    unit.read_string((SYSTEMD / f"{name}.service").read_text())
    return dict(unit[section])


@pytest.mark.parametrize("name", ["podium-server", "podium-worker"])
def test_a_unit_starts_the_program_with_arguments_that_it_accepts(name):
    python, flag, module, *arguments = shlex.split(service(name)["ExecStart"])

    assert ("/opt/podium/bin/python", "-m", name.replace("-", ".")) == (python, flag, module)
    if name == "podium-server":
        server_command.make_context(name, arguments)
    else:
        assert "all" == parse_worker(arguments).gpus


def test_only_the_agent_is_asked_to_stop_and_gets_the_time_that_it_takes():
    worker, server = service("podium-worker"), service("podium-server")

    assert "mixed" == worker["KillMode"]
    assert float(worker["TimeoutStopSec"]) >= 1.25 * Leases.grace
    assert float(server["TimeoutStopSec"]) >= 1.25 * Options(listen="").grace
    assert {"always"} == {worker["Restart"], server["Restart"]}


def test_the_workers_unit_leaves_room_for_gpus_and_for_what_is_written():
    worker, server = service("podium-worker"), service("podium-server")
    settings = from_environment(environment_file())

    assert not {"PrivateDevices", "MemoryDenyWriteExecute", "DevicePolicy"} & worker.keys()
    assert "continue" == worker["OOMPolicy"]
    assert settings.artifacts == worker["ReadWritePaths"] == server["ReadWritePaths"]


@pytest.mark.parametrize("name", ["podium-server", "podium-worker"])
def test_no_program_begins_in_the_empty_folder_of_a_mount_that_failed(name):
    settings = from_environment(environment_file())

    assert [settings.artifacts, *settings.data_roots] == service(name, "Unit")["RequiresMountsFor"].split()


def environment_file() -> dict[str, str]:
    """podium.env as systemd reads it, but for the password's file, which is not on this machine."""
    lines = [line for line in (SYSTEMD / "podium.env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines) | {"PODIUM_REDIS_PASSWORD_FILE": ""}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_systemd_itself_finds_nothing_wrong(tmp_path):
    for unit in SYSTEMD.glob("*.service"):
        # It looks whether the program is there.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/podium/bin/python", sys.executable))
    units = sorted(map(str, tmp_path.glob("*.service")))

    run = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)

    assert (0, "") == (run.returncode, run.stdout + run.stderr)


def test_shellcheck_finds_nothing_in_the_scripts():
    scripts = [PILOT, ROOT / "deploy" / "redis" / "start"]
    checker = Path(sys.executable).with_name("shellcheck")

    assert "" == subprocess.run([checker, *scripts], capture_output=True, text=True, check=False).stdout


def test_slurm_warns_the_pilot_early_enough_for_the_agents_grace():
    options = re.findall(r"^#SBATCH --signal=(\w*):?(\w+)@(\d+)$", PILOT.read_text(), re.MULTILINE)

    ((whom, number, seconds),) = options
    assert ("B", "USR1") == (whom, number)
    assert int(seconds) >= 1.25 * Leases.grace


@pytest.fixture
def slice_(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts the pilot as Slurm does: a bash script with the machine's name in its environment."""
    settings = tmp_path / "podium.env"
    settings.write_text(f"PODIUM_REDIS_URL='{redis_url}'\nPODIUM_ARTIFACTS='{tmp_path}/artifacts'\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    started = []

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"PATH": path, "PODIUM_ENV": str(settings), "SLURMD_NODENAME": "gpu-17"}
        started.append(subprocess.Popen(["bash", PILOT, *arguments], env=environment))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.mark.parametrize("warning", [signal.SIGUSR1, signal.SIGTERM])
def test_a_slice_joins_the_pool_and_leaves_it_in_good_order_when_slurm_warns(slice_, redis_client, warning):
    store = RedisStore(redis_client, leases=Leases())
    pilot = slice_("--cpu-slots", "1", "--pool", "night")
    deadline = time.monotonic() + 60
    while not (nodes := store.nodes()):
        assert pilot.poll() is None
        assert time.monotonic() < deadline, "the agent did not come up"
        time.sleep(0.05)

    pilot.send_signal(warning)

    assert 0 == pilot.wait(60)
    (node,) = nodes
    assert ("gpu-17", "night", NodeState.READY) == (node.id, node.pool, node.state)
    assert [] == list(store.nodes())


def test_a_slice_without_settings_says_where_they_belong(tmp_path):
    environment = os.environ | {"PODIUM_ENV": str(tmp_path / "absent.env")}

    run = subprocess.run(["bash", PILOT], env=environment, capture_output=True, text=True, check=False)

    assert 2 == run.returncode
    assert "absent.env cannot be read; write the settings there" in run.stderr
