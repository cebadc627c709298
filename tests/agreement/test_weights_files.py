"""The server refuses files of weights that no worker can read, and none that one can, whatever they are called."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from podium.server.admission._findings import Findings
from podium.server.admission._paths import Places
from podium.server.admission._weights import check_weights_file
from podium.worker.fit import FitError
from podium.worker.fit.weights import _parsed


def is_refused(file: Path) -> bool:
    findings = Findings()
    check_weights_file(Places(roots=[str(file.parent)], uri_prefixes=()), str(file), findings)
    return findings.about("spec.weights.file")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_what_a_worker_can_read_is_admitted(kind, tmp_path):
    tensors, file = {"fc.weight": torch.ones(2, 2)}, tmp_path / "weights.bin"
    if kind == "safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "zip")

    assert ["fc.weight"] == list(_parsed(file.read_bytes(), file.name))
    assert not is_refused(file)


@pytest.mark.parametrize("content", [b"path,label\n1.jpg,cat\n", b"", b"{}", b"\x93NUMPY\x01\x00v\x00{"])
def test_what_is_refused_no_worker_can_read(content, tmp_path):
    (file := tmp_path / "weights.safetensors").write_bytes(content)

    assert is_refused(file)
    with pytest.raises(FitError):
        _parsed(content, file.name)
