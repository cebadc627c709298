import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.client import Checkpoint, CheckpointFile, DataLossError, UnavailableError
from podium.client._download import download
from podium.client._patience import Patience

WEIGHTS = bytes(range(256)) * 40
MANIFEST = b"{}"


def checkpoint(**names: bytes) -> Checkpoint:
    files = tuple(
        CheckpointFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in (names or {"model.safetensors": WEIGHTS, "manifest.json": MANIFEST}).items()
    )
    return Checkpoint(id="ckpt-1", job_id="job-1", attempt=1, step=1, files=files)


class Source:
    """Sends files in chunks of 1000 bytes; the first streams break after so many chunks."""

    def __init__(self, breaks=None, damage: int = 0, files=None) -> None:
        self.files = files or {"model.safetensors": WEIGHTS, "manifest.json": MANIFEST}
        self.breaks: list[int] = breaks or []
        self.damage = damage
        self.offsets: list[int] = []
        self.sent = 0

    def open(self, name: str, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        data = self.files[name]
        if self.damage:
            self.damage -= 1
            data = b"\xff" + data[1:]
        chunks = self.breaks.pop(0) if self.breaks else None
        for number, start in enumerate(range(offset, len(data), 1000)):
            if number == chunks:
                raise UnavailableError("gone")
            self.sent += len(data[start : start + 1000])
            yield data[start : start + 1000]


def fetch(source: Source, directory: Path, what: Checkpoint | None = None) -> Path:
    patience = Patience(60, sleep=lambda seconds: None)
    return download(what or checkpoint(), directory, source.open, patience, lambda there, total: None)


def test_a_download_lands_in_a_folder_of_the_checkpoints_name(tmp_path):
    path = fetch(Source(), tmp_path)

    assert tmp_path / "ckpt-1" == path
    assert WEIGHTS == (path / "model.safetensors").read_bytes()
    assert ["ckpt-1"] == [entry.name for entry in tmp_path.iterdir()]


def test_a_stream_that_breaks_goes_on_at_its_offset(tmp_path):
    source = Source(breaks=[3, 4])

    path = fetch(source, tmp_path)

    assert WEIGHTS == (path / "model.safetensors").read_bytes()
    assert [0, 3000, 7000, 0] == source.offsets


def test_what_an_earlier_call_left_is_carried_on_with(tmp_path):
    partial = tmp_path / ".ckpt-1.part"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(WEIGHTS[:5000])
    source = Source()

    path = fetch(source, tmp_path)

    assert WEIGHTS == (path / "model.safetensors").read_bytes()
    assert 5000 == source.offsets[0]


def test_a_damaged_rest_of_an_earlier_call_is_read_afresh(tmp_path):
    partial = tmp_path / ".ckpt-1.part"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"\0" * 20_000)

    assert WEIGHTS == (fetch(Source(), tmp_path) / "model.safetensors").read_bytes()


def test_bytes_without_their_digest_never_appear(tmp_path):
    with pytest.raises(DataLossError, match=r"model\.safetensors"):
        fetch(Source(damage=9), tmp_path)

    assert not (tmp_path / "ckpt-1").exists()


def test_a_server_that_sends_more_than_it_said_is_refused(tmp_path):
    source = Source(files={"model.safetensors": WEIGHTS * 9})

    with pytest.raises(DataLossError):
        fetch(source, tmp_path, checkpoint(**{"model.safetensors": WEIGHTS}))
    assert source.sent <= len(WEIGHTS) + 1000


def test_what_is_there_and_whole_is_not_fetched_again(tmp_path):
    fetch(Source(), tmp_path)
    source = Source()

    fetch(source, tmp_path)

    assert [] == source.offsets


def test_what_is_there_and_damaged_is_fetched_again(tmp_path):
    path = fetch(Source(), tmp_path)
    (path / "model.safetensors").write_bytes(b"\0" * len(WEIGHTS))

    assert WEIGHTS == (fetch(Source(), tmp_path) / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "..", "a/b", ""])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(DataLossError, match="no plain file name"):
        fetch(Source(files={name: b"x"}), tmp_path / "inner", checkpoint(**{name: b"x"}))

    assert [] == [entry for entry in tmp_path.rglob("*") if entry.is_file()]
