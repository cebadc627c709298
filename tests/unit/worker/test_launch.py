"""How torchrun ends its ranks, and what it says of that. Real processes."""

import os
import signal
import time

import pytest

from podium.worker.launch import Place, exits, launch
from podium.worker.torchrun import _causes

#: Read by Python itself, before anything of ours: rank 0 is not there yet when rank 1 dies.
STARTING = """
import os, signal, time
if os.environ.get("LOCAL_RANK") == "0":
    time.sleep(60)
if os.environ.get("LOCAL_RANK") == "1":
    open(os.path.join(os.path.dirname(__file__), "died"), "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_rank_that_dies_while_another_still_starts_ends_both_at_once_and_is_the_one_that_is_named(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(STARTING)
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    torchrun = launch(Place(ranks=2), tmp_path, mark="test", environment=environment)
    code = torchrun.wait(timeout=120)
    seconds = time.time() - (tmp_path / "died").stat().st_mtime

    assert (1, {1: -signal.SIGKILL}) == (code, exits(tmp_path))
    assert seconds < 25


@pytest.mark.parametrize(
    ("noted", "causes"),
    [
        ({1: -9, 0: -15}, {1: -9}),
        ({0: 1, 1: -9, 2: -15}, {0: 1, 1: -9}),
        ({1: -15, 0: -15}, {1: -15}),
        ({}, {}),
    ],
    ids=["one was killed", "another saw it and failed", "one was asked to end", "none"],
)
def test_ranks_that_torchrun_has_ended_are_no_cause(noted, causes):
    assert causes == _causes(noted)
