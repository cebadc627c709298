"""What was released does not break: buf says so, and would say if it did."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = ROOT / ".venv-proto" / "bin" / "buf"
RELEASED = sorted((ROOT / "proto" / "released").glob("*.binpb"))

pytestmark = pytest.mark.skipif(not BUF.exists(), reason="buf is installed by `make proto-check`")


def breaking(proto: Path, released: Path) -> str:
    """What buf finds in one contract against another."""
    command = [str(BUF), "breaking", str(proto), "--against", str(released)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Makes a copy of the contract in which a text of a file is another."""

    def change(file: str, old: str, new: str) -> Path:
        copy = tmp_path / "proto"
        shutil.copytree(ROOT / "proto", copy, ignore=shutil.ignore_patterns("gen", "released"))
        path = copy / "podium" / "api" / "v1" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return copy

    return change


@pytest.mark.parametrize("released", RELEASED, ids=[path.stem for path in RELEASED])
def test_the_contract_breaks_nothing_of_a_release(released):
    assert "" == breaking(ROOT / "proto", released)


def test_every_check_of_the_contract_asks_it_of_all_releases():
    assert "for released in proto/released/*.binpb; do .venv-proto/bin/buf breaking" in (ROOT / "Makefile").read_text()
    assert "0.1.0" in [path.stem for path in RELEASED]


@pytest.mark.parametrize(
    ("file", "old", "new", "found"),
    [
        ("job_service.proto", "uint64 after_sequence = 2", "uint64 after_sequence = 33", "after_sequence"),
        ("job_service.proto", "uint64 after_sequence = 2", "string after_sequence = 2", "changed type"),
        ("job_service.proto", "rpc GetJob(", "rpc FetchJob(", "GetJob"),
        ("spec.proto", "optional uint32 image_size = 1", "uint32 image_size = 1", "cardinality"),
        ("spec.proto", "RESIZE_SQUASH = 2", "RESIZE_SQUASH = 3", "Resize"),
    ],
    ids=["a number", "a type", "the name of an rpc", "presence", "the number of a value"],
)
def test_a_change_that_breaks_is_caught(changed, file, old, new, found):
    assert found in breaking(changed(file, old, new), RELEASED[0])


def test_a_new_field_breaks_nothing(changed):
    proto = changed("job_service.proto", "uint64 after_sequence = 2;", "uint64 after_sequence = 2;\n  bool new = 999;")

    assert "" == breaking(proto, RELEASED[0])
