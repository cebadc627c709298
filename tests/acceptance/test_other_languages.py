"""A client in another language, which has nothing of ours but the .proto files."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "node"
PROTO = Path(__file__).resolve().parents[2] / "proto"

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed"),
]


@pytest.fixture(scope="module")
def node_client(tmp_path_factory) -> Path:
    """The client beside its installed packages."""
    directory = tmp_path_factory.mktemp("node")
    shutil.copytree(HERE, directory, dirs_exist_ok=True)
    subprocess.run(
        ["npm", "install", "--silent", "--no-package-lock", "--no-audit", "--no-fund"],
        cwd=directory,
        check=True,
        timeout=180,
    )
    return directory / "client.js"
