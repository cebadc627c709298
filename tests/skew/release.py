"""The source of the last release, out of the repository's own history."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

#: 0.1.0, the release before this one. Its contract is proto/released/0.1.0.binpb.
COMMIT = "ff178d4"
HERE = Path(__file__).parents[2]
_ROOMS = ("proto/gen", "jobs", "topk", "server", "worker", "client")


def there() -> bool:
    """Whether there is a history that has the release; a source archive has none, nor may a shallow clone."""
    if shutil.which("git") is None:
        return False
    command = ["git", "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    asked = subprocess.run(command, cwd=HERE, capture_output=True, check=False)
    return asked.returncode == 0


def unpack(folder: Path) -> Path:
    """Writes the release's source into a folder, and returns the folder."""
    archive = subprocess.run(["git", "archive", COMMIT], cwd=HERE, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def import_path(root: Path) -> str:
    """The PYTHONPATH by which programs run from a source tree, whatever is installed."""
    return os.pathsep.join(str(root / room) for room in ("", *_ROOMS))
