"""A client in another language, which has nothing of ours but the .proto files."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

HERE = Path(__file__).parent / "node"
PROTO = Path(__file__).resolve().parents[2] / "proto"

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed"),
]


@pytest.fixture(scope="module")
def node_client(tmp_path_factory) -> Path:
    """The client beside its installed packages."""
    directory: Path = tmp_path_factory.mktemp("node")
    shutil.copytree(HERE, directory, dirs_exist_ok=True)
    subprocess.run(
        ["npm", "install", "--silent", "--no-package-lock", "--no-audit", "--no-fund"],
        cwd=directory,
        check=True,
        timeout=180,
    )
    return directory / "client.js"


@pytest.fixture
def server(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """A server process; its address."""
    _images(tmp_path / "images")
    port_file = tmp_path / "port"
    environment = {
        "PODIUM_REDIS_URL": redis_url,
        "PODIUM_ARTIFACTS": str(tmp_path / "artifacts"),
        "PODIUM_DATA_ROOTS": str(tmp_path),
    }
    command = [sys.executable, "-m", "podium.server", "--listen", "127.0.0.1:0", "--port-file", str(port_file)]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists():
            assert process.poll() is None, "the server ended at once"
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.05)
        yield port_file.read_text().strip()
    finally:
        process.terminate()
        process.wait(30)


def _images(folder: Path) -> None:
    for name in ("apple", "banana", "cherry"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (16, 16), (60 * index, 90, 120)).save(folder / name / f"{index}.png")


def test_a_node_client_creates_watches_and_reads_a_job(node_client, server, tmp_path):
    spec = {
        "backbone": "resnet18",
        "full": {},
        "image_folder": {"train": str(tmp_path / "images")},
        "k": {"1": 0.5, "2": 0.5},
        "subset": {},
        "resources": {"pool": "nobody-here"},
    }

    output = subprocess.check_output(
        ["node", node_client, PROTO, server, json.dumps(spec)], text=True, timeout=60, cwd=node_client.parent
    )
    seen = json.loads(output)

    assert ["apple", "banana", "cherry"] == seen["created"]["classes"]
    assert "STATE_QUEUED" == seen["created"]["state"]
    assert "STATE_CANCELLED" == seen["cancelled"]
    # First the snapshot, then the whole history.
    assert ["snapshot", "state", "state"] == [event["payload"] for event in seen["events"]]
    assert [1, 2] == [event["sequence"] for event in seen["events"][1:]]
    assert "STATE_CANCELLED" == seen["events"][-1]["to"]
    assert seen["read"]["terminal"]
    assert "INVALID_ARGUMENT" == seen["refusal"]
