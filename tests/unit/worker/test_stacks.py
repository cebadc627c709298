"""Stacks of processes that hang, each in its own way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from podium.jobs.events import Level
from podium.worker.pulse import FOLDER
from podium.worker.stacks import collect

SHOW = "from podium.worker.stacks import show_on_signal; show_on_signal('attempt')"
WAITING = f"{SHOW}; print(flush=True); import time; time.sleep(60)"
#: Python's lock is held for good: a loop in C that never lets it go.
HOLDING = f"{SHOW}\ndef holding():\n    print(flush=True)\n    sum(iter(int, 1))\nholding()"


def texts(folder: Path) -> list[str]:
    return [line.text for line in collect(folder)]


@pytest.fixture
def hanging(tmp_path):
    """Starts a process that hangs, and returns when it can be asked."""
    started = []

    def start(code: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {FOLDER: str(tmp_path)}, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        with process:  # closes the pipe and waits
            process.kill()


def test_a_process_that_holds_pythons_lock_says_where_it_is(hanging, tmp_path):
    process = hanging(HOLDING)
    lines = texts(tmp_path)

    assert f"attempt (process {process.pid}):" == lines[0]
    assert any("in holding" in line for line in lines)
    assert process.poll() is None


def test_the_stacks_of_a_rank_are_its_own_lines(hanging, tmp_path):
    hanging(WAITING)
    hanging(WAITING.replace("'attempt'", "'rank 3'"))
    lines = collect(tmp_path)

    assert {(0, "attempt"), (3, "rank 3")} == {
        (line.rank, line.text.partition(" (process")[0]) for line in lines if "(process" in line.text
    }
    assert {0, 3} == {line.rank for line in lines if "in <module>" in line.text}
    assert {Level.ERROR} == {line.level for line in lines}


def test_a_stopped_process_is_said_to_be_stopped_and_a_dead_one_to_be_gone(hanging, tmp_path):
    stopped = hanging(WAITING)
    dead = hanging(WAITING)
    stopped.send_signal(signal.SIGSTOP)
    dead.kill()
    dead.wait()
    while psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED:
        pass

    assert {
        f"attempt (process {stopped.pid}) is stopped by a signal, and does not say where it is",
        f"attempt (process {dead.pid}) is gone, and does not say where it is",
    } == set(texts(tmp_path))


def test_a_stranger_that_has_the_number_of_a_dead_process_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / f"stacks-{stranger.pid}-attempt").touch()
        collect(tmp_path)
        alive = stranger.poll() is None
        stranger.kill()

    assert alive
