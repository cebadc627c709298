"""MANIFEST.json: what makes a directory a checkpoint."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from podium.jobs.errors import DataLossError
from podium.jobs.job import Checkpoint, CheckpointFile

MANIFEST = "MANIFEST.json"
FORMAT = 1
_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint consists of and where it comes from."""

    id: str
    job_id: str
    attempt: int
    fence: int
    step: int
    files: tuple[CheckpointFile, ...]
    metrics: Mapping[str, float]
    best: bool
    """Whether it was the best when it was written; the ledger knows which one is now."""
    spec_digest: str
    versions: Mapping[str, str]
    weights: Mapping[str, str]
    """What the model started from: "name", and "sha256" of the bytes; empty where that is not known."""
    created: datetime

    @property
    def checkpoint(self) -> Checkpoint:
        """As the ledger registers it."""
        return Checkpoint(
            id=self.id,
            job_id=self.job_id,
            attempt=self.attempt,
            step=self.step,
            metrics=self.metrics,
            best=self.best,
            files=self.files,
            create_time=self.created,
        )

    def to_json(self) -> str:
        """The text of MANIFEST.json."""
        values = {
            "format": FORMAT,
            **vars(self),
            "files": [vars(file) for file in self.files],
            "metrics": dict(self.metrics),
            "versions": dict(self.versions),
            "weights": dict(self.weights),
            "created": self.created.isoformat(),
        }
        return json.dumps(values, indent=2)


def check_name(name: str) -> str:
    """The name of a file, a job or a checkpoint, if it is one and not a path.

    Raises:
        ValueError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain name (of a file, job, …): letters, digits, '_', '.' and '-'")
    return name


def read(directory: Path) -> Manifest:
    """The manifest in a directory named after its checkpoint, checked from end to end.

    Raises:
        FileNotFoundError: there is none.
        DataLossError: it is damaged, or is not that checkpoint's.
    """
    path = directory / MANIFEST
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    try:
        if len(text) > _MAX_BYTES:
            raise ValueError("it is too long")
        return _parse(json.loads(text), directory)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataLossError(
            f"{path} is not a manifest ({error!r}); an earlier checkpoint can be used instead"
        ) from error


def _parse(values: Mapping[str, Any], directory: Path) -> Manifest:
    if values["format"] != FORMAT:
        raise ValueError(f"its format is {values['format']!r} and not {FORMAT}")
    if (values["job_id"], values["id"]) != (directory.parent.parent.name, directory.name):
        raise ValueError("it belongs to another checkpoint")
    files = tuple(_file(entry) for entry in values["files"])
    if len({file.name for file in files}) != len(files):
        raise ValueError("it names a file twice")
    return Manifest(
        id=values["id"],
        job_id=values["job_id"],
        attempt=int(values["attempt"]),
        fence=int(values["fence"]),
        step=int(values["step"]),
        files=files,
        metrics={str(name): float(value) for name, value in values["metrics"].items()},
        best=bool(values["best"]),
        spec_digest=str(values["spec_digest"]),
        versions={str(name): str(value) for name, value in values["versions"].items()},
        weights={str(name): str(value) for name, value in values.get("weights", {}).items()},
        created=datetime.fromisoformat(values["created"]),
    )


def _file(entry: Mapping[str, Any]) -> CheckpointFile:
    if not _SHA256.fullmatch(entry["sha256"]):
        raise ValueError("a digest is not a SHA-256 in lower-case hexadecimal")
    size = int(entry["size"])
    if size < 0:
        raise ValueError("a size is below 0")
    return CheckpointFile(name=check_name(entry["name"]), size=size, sha256=entry["sha256"])
