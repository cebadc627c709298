"""Stacks of processes that hang, each in its own way."""

import os
import signal
import subprocess
import sys

import psutil

from podium.worker.pulse import FOLDER
from podium.worker.stacks import collect

#: Python's lock is held for good: a loop in C that never lets it go.
HOLDING = "def holding():\n    print(flush=True)\n    sum(iter(int, 1))\nholding()"
#: More threads than one, of which the first is what is looked for.
THREADED = """
import threading, time
def beside(): ready.set(); time.sleep(60)
def main(): print(flush=True); time.sleep(60)
ready = threading.Event()
threading.Thread(target=beside, daemon=True).start()
ready.wait()
main()
"""


def test_a_process_that_holds_pythons_lock_says_where_it_is(hanging, tmp_path):
    process = hanging("attempt", HOLDING)
    told = collect(tmp_path, " on n1")

    assert told["attempt"].startswith(f"attempt on n1 (process {process.pid}):\n")
    assert "in holding" in told["attempt"]
    assert process.poll() is None


def test_the_main_thread_comes_first_and_what_was_said_before_is_not_said_again(hanging, tmp_path):
    process = hanging("rank 1", THREADED)
    first, second = collect(tmp_path)["rank 1"], collect(tmp_path)["rank 1"]

    assert first.startswith(f"rank 1 (process {process.pid}):\nThread ")
    assert 0 < first.index("in main") < first.index("in beside")
    assert (1, 1) == (second.count("in main"), second.count("in beside"))


def test_a_thread_of_pythons_answers_as_a_handler_that_reads_what_runs_may_crash_the_process(hanging, tmp_path):
    process = hanging("rank 0", THREADED)
    told = collect(tmp_path)["rank 0"]

    # All others wait for the lock that it has.
    (answering,) = [thread for thread in told.split("\n\n") if thread.startswith("Current thread ")]
    assert "in _answer" in answering
    assert process.poll() is None


def test_a_stopped_process_is_said_to_be_stopped_and_a_dead_one_to_be_gone(hanging, tmp_path):
    stopped = hanging("rank 0")
    dead = hanging("rank 1")
    stopped.send_signal(signal.SIGSTOP)
    dead.kill()
    dead.wait()
    while psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED:
        pass

    assert collect(tmp_path) == {
        "rank 0": f"rank 0 (process {stopped.pid}) is stopped by a signal, and does not say where it is",
        "rank 1": f"rank 1 (process {dead.pid}) is gone, and does not say where it is",
    }


def test_a_stranger_that_has_the_number_of_a_dead_process_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / f"stacks-{stranger.pid}-attempt").touch()
        collect(tmp_path)
        alive = stranger.poll() is None
        stranger.kill()

    assert alive


#: As an attempt's process on a machine that follows: not its main thread asks.
ASKING = """
import sys, threading, time
from pathlib import Path
from podium.worker.stacks import collect, show_on_signal
def asking():
    for _ in range(5): told.append(collect(Path(sys.argv[1]))["attempt"])
show_on_signal("attempt")
told = []
thread = threading.Thread(target=asking)
thread.start()
while thread.is_alive(): time.sleep(0.001)
print(told[-1], flush=True)
"""


def test_a_process_that_asks_for_its_own_stacks_lives_on(tmp_path):
    command = [sys.executable, "-c", ASKING, str(tmp_path)]
    asked = subprocess.run(command, env={**os.environ, FOLDER: str(tmp_path)}, capture_output=True, text=True)

    assert (0, "") == (asked.returncode, asked.stderr)
    assert "in asking" in asked.stdout
