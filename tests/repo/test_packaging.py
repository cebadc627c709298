"""What is installed, and what is not."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("proto/gen", "jobs", "topk", "server", "worker", "client")


def test_no_root_hides_the_other_rooms_behind_an_init_file():
    assert [] == [root for root in SOURCE_ROOTS if (ROOT / root / "podium" / "__init__.py").exists()]


def test_every_room_says_that_it_is_typed():
    rooms = ("jobs", "topk", "server", "worker", "client")

    assert [] == [room for room in rooms if not (ROOT / room / "podium" / room / "py.typed").exists()]


def test_what_git_ignores_never_goes_into_an_image():
    ignored, left_out = (
        {line.removeprefix("**/").strip("/") for line in (ROOT / name).read_text().splitlines()}
        for name in (".gitignore", ".dockerignore")
    )

    assert set() == ignored - left_out


def test_every_requirement_of_every_extra_has_an_exact_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    lists += project["dependency-groups"].values()
    wanted = {_plain(requirement) for requirements in lists for requirement in requirements} - {"podium"}

    pinned = {_plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")}

    assert set() == wanted - pinned


def _plain(requirement: str) -> str:
    return re.split(r"[^a-z0-9-]", re.sub(r"[-_.]+", "-", requirement.lower()), maxsplit=1)[0]


def test_the_constraints_name_exact_versions_and_no_host():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]

    assert [] == [line for line in lines if "==" not in line or "://" in line]


@pytest.fixture(scope="module")
def client_only(tmp_path_factory) -> Path:
    """A fresh environment with `pip install .` alone; its Python."""
    directory: Path = tmp_path_factory.mktemp("client-only")
    venv.create(directory)
    python = directory / "bin" / "python"
    # With this environment's pip, as one of its own would take as long to install as the client.
    _pip(python, "install", "--quiet", "--constraint", f"{ROOT}/constraints.txt", str(ROOT))
    return python


def _pip(python: Path, *words: str) -> str:
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *words]
    return subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True).stdout


def test_pip_install_alone_gives_a_client_without_torch_or_redis(client_only):
    names = {package["name"].lower() for package in json.loads(_pip(client_only, "list", "--format", "json"))}

    assert {"podium", "grpcio", "protobuf"} <= names
    assert not names & {"torch", "torchvision", "timm", "redis", "rq", "protovalidate", "fsspec"}


def test_a_client_alone_can_show_its_help_and_says_what_a_server_needs(client_only):
    # Away from the checkout, which must not be importable by accident.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = {"cwd": client_only.parent, "env": environment, "capture_output": True, "text": True, "timeout": 60}

    shown = subprocess.run([client_only.parent / "podium", "--help"], check=True, **run)
    refused = subprocess.run([client_only, "-m", "podium.server"], check=False, **run)

    assert "submit" in shown.stdout
    assert refused.returncode != 0
    assert 'pip install "podium[server]"' in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["-m", "podium.client.cli", "up", "--local"], 'pip install "podium[local]"'),
        (["-m", "podium.client.cli", "demo"], 'pip install "podium[demo]"'),
        (["-m", "podium.worker"], "pip install 'podium[worker]'"),
        (["-c", "import podium.topk"], 'pip install "podium[topk]"'),
    ],
)
def test_a_client_alone_says_what_the_other_programs_need(client_only, words: list[str], extra: str):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    refused = subprocess.run(
        [client_only, *words], cwd=client_only.parent, env=environment, capture_output=True, text=True, timeout=60
    )

    assert refused.returncode != 0
    assert extra in refused.stderr.splitlines()[-1]


_IMPORTED = """
from time import process_time as now
start = now()
import grpc, google.protobuf.json_format
there = now()
import podium.client
podium.client.Client
print((now() - there) / (there - start))
"""


def test_importing_the_client_is_quick(client_only):
    # Against what it cannot do without, as a busy machine lengthens both: it was 1.2 times that, in all 0.3 s.
    times = [float(subprocess.check_output([client_only, "-c", _IMPORTED], cwd=client_only.parent)) for _ in range(3)]

    assert min(times) < 2, f"import podium.client takes {min(times):.1f} times what gRPC and protobuf take"
