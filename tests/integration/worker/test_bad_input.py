"""Bad input ends in a sentence and leaves the queue intact; good input of every kind trains between it.

One stack for all, as `podium up --local` starts it: Redis, a server, a worker of two slots. Its server takes all jobs.
Some, bad and good by turns, go through its queue. The others wait for a pool that has no machine, and their attempts
run here: a process for each would tell no more, and import torch first. Long, because a second file would be a second
stack to start.
"""

import io
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from pyarrow import parquet

from podium.client import (
    Cause,
    Client,
    Evaluation,
    FullFineTuning,
    ImageFolder,
    ImageManifest,
    InvalidSpecError,
    Job,
    JobHandle,
    JobSpec,
    LastBlocks,
    LinearHead,
    LogBatch,
    Preprocessing,
    State,
    Subset,
    TorchvisionDataset,
    Unreadable,
    WebDataset,
    Weights,
)
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import merge_metrics
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.settings import Settings
from podium.jobs.spec import Dataset, Resources
from podium.jobs.store import Leases, MemoryStore, NewJob
from podium.worker.attempt import Attempt
from podium.worker.stop import StopFlag

CLASSES = ("a", "b", "c")
SECONDS = 240
_ARTIFACTS_BYTES = 256 << 20


def spec(dataset: Dataset, **changes: Any) -> JobSpec:
    """One epoch of a tiny model; keywords replace parts."""
    parts: dict[str, Any] = {
        "backbone": "timm/test_resnet",
        "tuning": FullFineTuning(),
        "preprocessing": Preprocessing(image_size=32),
        "sorter": Subset(),
        "k": {1: 0.5, 2: 0.5},
        "epochs": 1,
        "batch_size": 8,
        "evaluation": Evaluation(top_k=(1, 2)),
    }
    return JobSpec(dataset=dataset, **parts | changes)


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A picture whose colour tells its class, `number` modulo 3."""
    pixels = np.random.default_rng(number).integers(0, 120, (40, 36, 3), dtype=np.uint8)
    pixels[..., number % 3] += 130
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def huge_png() -> bytes:
    """A header that promises 60,000 x 60,000 pixels, and one row's worth of bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(180_001))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def folders(root: Path, each: int = 8) -> Path:
    """Class folders; the pictures are numbered through: a/0.jpg, b/1.jpg, c/2.jpg, a/3.jpg …"""
    for label in CLASSES:
        (root / label).mkdir(parents=True)
    for number in range(3 * each):
        (root / CLASSES[number % 3] / f"{number}.jpg").write_bytes(picture(number))
    return root


def weights(root: Path, backbone: str = "test_resnet") -> Weights:
    """A file of weights: those that the model begins with."""
    path = root / f"{backbone}.safetensors"
    safetensors.torch.save_file(timm.create_model(backbone, num_classes=5).state_dict(), path)
    return Weights(file=str(path))


def in_folders(root: Path, **changes: Any) -> JobSpec:
    return spec(ImageFolder(train=str(folders(root / "train"))), **changes)


def rows(root: Path) -> list[dict[str, str]]:
    folders(root / "images")
    return [{"path": f"{CLASSES[i % 3]}/{i}.jpg", "label": f"{CLASSES[i % 3]}, named"} for i in range(24)]


def in_a_csv(root: Path) -> JobSpec:
    lines = ["path,label", *(f'{row["path"]},"{row["label"]}"' for row in rows(root))]
    (root / "train.csv").write_text("\n".join(lines))
    return spec(ImageManifest(train=str(root / "train.csv"), root=str(root / "images")))


def in_a_parquet(root: Path) -> JobSpec:
    parquet.write_table(pyarrow.Table.from_pylist(rows(root)), root / "train.parquet")
    table = ImageManifest(train=str(root / "train.parquet"), root=str(root / "images"))
    return spec(table, tuning=LinearHead(), weights=weights(root))


def in_shards(root: Path) -> JobSpec:
    for shard in range(2):
        with tarfile.open(root / f"train-{shard:03}.tar", "w") as tar:
            for number in range(12 * shard, 12 * shard + 12):
                for extension, data in (("png", picture(number, "PNG")), ("cls", str(number % 3).encode())):
                    member = tarfile.TarInfo(f"{number:04}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    shards = WebDataset(train=(f"{root}/train-{{000..001}}.tar",))
    return spec(shards, classes=CLASSES, tuning=LastBlocks(blocks=1), weights=weights(root))


def in_torchvision(root: Path) -> JobSpec:
    """FashionMNIST as its files are written: 40 images to train on, 20 to test on."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 40), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.broadcast_to(25 * labels[:, None, None], (count, 28, 28))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return spec(TorchvisionDataset(name="FashionMNIST", root=str(root), val_fraction=0.25))


def with_one_broken(root: Path) -> JobSpec:
    """102 images to train on, of which one is cut."""
    train, val = folders(root / "train", each=34), folders(root / "val", each=4)
    cut(train / "b" / "4.jpg")
    return spec(ImageFolder(train=str(train), val=str(val)), unreadable=Unreadable.SKIP, batch_size=32)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def with_a_cut_jpeg(root: Path) -> JobSpec:
    job = in_folders(root)
    cut(root / "train" / "b" / "4.jpg")
    return job


def with_a_huge_png(root: Path) -> JobSpec:
    job = in_folders(root, tuning=LinearHead(), weights=weights(root))
    (root / "train" / "c" / "huge.png").write_bytes(huge_png())
    return job


def with_weights_of_another(root: Path) -> JobSpec:
    return in_folders(root, weights=weights(root, "test_efficientnet"))


class Payload:
    """What a pickle does that is loaded without care."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self._trap),)


def with_a_pickle(root: Path) -> JobSpec:
    # torch.load reads bare pickles, too, as old files are.
    (root / "weights.pth").write_bytes(pickle.dumps({"conv1.weight": Payload(root / "trap")}, protocol=2))
    return in_folders(root, weights=Weights(file=str(root / "weights.pth")))


def of_too_small_a_size(root: Path) -> JobSpec:
    return in_folders(root, backbone="torchvision/squeezenet1_1", preprocessing=Preprocessing(image_size=16))


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A job that the server accepts and a worker cannot do, and what its user is to read."""

    build: Callable[[Path], JobSpec]
    cause: Cause
    message: str
    remedy: str
    spoil: Callable[[Path], object] = lambda root: None
    """What happens to the files once the job is accepted."""


BAD = {
    "a truncated JPEG": Bad(
        build=with_a_cut_jpeg,
        cause=Cause.DATA,
        message=r"^/.*/train/b/4\.jpg is no readable image: .*truncated",
        remedy="repair or remove the image, or write unreadable: skip",
    ),
    "a PNG of 60,000 x 60,000 pixels": Bad(
        build=with_a_huge_png,
        cause=Cause.DATA,
        message=r"^/.*/train/c/huge\.png has more than 89478485 pixels; make it smaller",
        remedy="repair or remove the image",
    ),
    "a table whose image is gone": Bad(
        build=in_a_csv,
        spoil=lambda root: (root / "images" / "c" / "5.jpg").unlink(),
        cause=Cause.DATA,
        message=r"train\.csv, row 7: there is no image .*/c/5\.jpg; add it, or take the row out",
        remedy="mend the data",
    ),
    "weights of another architecture": Bad(
        build=with_weights_of_another,
        cause=Cause.USER_CONFIG,
        message=r"the weights test_efficientnet\.safetensors do not fit timm/test_resnet: (\w+\.)+\w+ has",
        remedy="name the backbone that the weights were made with",
    ),
    "a state dict with a pickle in it": Bad(
        build=with_a_pickle,
        cause=Cause.USER_CONFIG,
        message=r"weights\.pth cannot be read: it holds posix\.mkdir, which is no tensor",
        remedy=r"save model\.state_dict\(\) and nothing else",
    ),
    "a size that the backbone cannot take": Bad(
        build=of_too_small_a_size,
        cause=Cause.USER_CONFIG,
        message="the backbone does not take images of 16 x 16 pixels: ",
        remedy=r"set preprocessing\.image_size to 32",
    ),
}

GOOD: dict[str, Callable[[Path], JobSpec]] = {
    "a .csv table": in_a_csv,
    "a .parquet table": in_a_parquet,
    "shards": in_shards,
    "a dataset of torchvision": in_torchvision,
    "class folders, one image of 102 broken": with_one_broken,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bad-input")
    # `podium up` refuses a data root that is not there.
    (made / "data").mkdir()
    return made


@pytest.fixture(scope="module")
def disk(root: Path) -> Iterator[Path]:
    """The artifact directory: a small disk of its own where this user may mount one."""
    artifacts = root / "stack" / "artifacts"
    artifacts.mkdir(parents=True)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={_ARTIFACTS_BYTES}", "podium-test", str(artifacts))
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    yield artifacts
    if is_mounted:
        subprocess.run(("umount", str(artifacts)), check=True)


@pytest.fixture(scope="module")
def client(root: Path, disk: Path) -> Iterator[Client]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
    command = [sys.executable, "-u", "-m", "podium.client.cli", "up", "--local", "--slots", "2"]
    places = ["--data-dir", str(root / "stack"), "--data-root", str(root / "data"), "--listen", "127.0.0.1:0"]
    stack = subprocess.Popen(
        [*command, *places],
        env=environment | {"XDG_STATE_HOME": str(root / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert stack.stdout is not None
    first = stack.stdout.readline()
    found = re.search(r"Podium is up at (127\.0\.0\.1:\d+)", first)
    assert found, first + stack.stdout.read()
    with Client(found[1]) as client:
        yield client
    stack.send_signal(signal.SIGINT)
    stack.communicate(timeout=90)


def folder_for(root: Path, name: str) -> Path:
    folder = root / "data" / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True)
    return folder


#: What goes through the queue of the stack, in this order, bad and good by turns.
QUEUED = (
    "a truncated JPEG",
    "shards",
    "a state dict with a pickle in it",
    "class folders, one image of 102 broken",
)


def built(name: str, root: Path, client: Client, resources: Resources) -> JobHandle:
    """A job that the server has taken; if it is a bad one, its files are then as bad as they are to be."""
    folder, build = folder_for(root, name), BAD[name].build if name in BAD else GOOD[name]
    handle = client.submit(replace(build(folder), resources=resources))
    if name in BAD:
        BAD[name].spoil(folder)
    return handle


@pytest.fixture(scope="module")
def jobs(client: Client, root: Path) -> dict[str, JobHandle]:
    """The jobs of the queue."""
    return {name: built(name, root, client, Resources()) for name in QUEUED}


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    metrics: dict[str, dict[int, float]]
    checkpoints: int


@pytest.fixture
def outcome(client: Client, jobs: dict[str, JobHandle], root: Path) -> Iterator[Callable[[str], Outcome]]:
    """A job by its name, once it has ended: in the stack, or of one attempt here."""

    def find(name: str) -> Outcome:
        if name not in jobs:
            return attempted(built(name, root, client, Resources(pool="by-hand")).job(), root / "by-hand")
        job, series = ended(jobs[name]), jobs[name].metrics()
        points = {metric: dict(zip(one.steps, one.values, strict=True)) for metric, one in series.items()}
        return Outcome(job, points, len(jobs[name].checkpoints()))

    threads = torch.get_num_threads()
    yield find
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def attempted(job: Job, artifacts: Path) -> Outcome:
    """One attempt of a job in this process, on a ledger in memory."""
    store = MemoryStore()
    store.heartbeat(Node(id="n", pool=job.spec.resources.pool, state=NodeState.READY, slots=(Slot(index=0),)))
    own, _ = store.create(NewJob(project="p", spec=job.spec, classes=job.classes))
    settings = Settings(redis_url="", redis_password=None, artifacts="", data_roots=(), leases=Leases())
    assignment = store.dispatch(own.id, "n", 0)
    Attempt(store, ArtifactStore(str(artifacts)), assignment, settings, StopFlag(), threads=1).run()
    points = merge_metrics(list(store.metrics(own.id)))
    return Outcome(store.get(own.id), points, len(store.checkpoints(own.id)))


def ended(handle: JobHandle) -> Job:
    return handle.wait(timeout=SECONDS)


def assert_failed(job: Job, cause: Cause, message: str, remedy: str) -> None:
    assert (State.FAILED, 1) == (job.state, len(job.attempts)), job.state_reason
    assert job.error is not None
    assert cause is job.error.cause, job.error.message
    assert re.search(message, job.error.message), job.error.message
    assert re.search(remedy, job.error.remedy), job.error.remedy
    # The sentence is for a table and a terminal; what else there is to say is in the traceback.
    assert "\n" not in job.error.message


@pytest.mark.parametrize("name", BAD)
def test_what_a_worker_cannot_use_ends_the_job_with_what_it_is_and_the_remedy(outcome, name):
    bad = BAD[name]

    assert_failed(outcome(name).job, bad.cause, bad.message, bad.remedy)


def test_a_pickle_among_weights_is_not_run(jobs, root):
    ended(jobs["a state dict with a pickle in it"])

    assert [] == list((root / "data").rglob("trap"))


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_dataset_is_trained_on_and_evaluated(outcome, name):
    found = outcome(name)

    assert found.job.error is None
    assert State.SUCCEEDED is found.job.state
    steps = list(found.metrics["train/loss"])
    assert list(range(1, len(steps) + 1)) == steps
    for metric in ("val/loss", "val/top1", "val/top2", "val/expected_accuracy", "data/unreadable"):
        assert steps[-1] == list(found.metrics[metric])[-1], metric
    assert ("test/top1" in found.metrics) == (name == "a dataset of torchvision")
    assert found.checkpoints


def test_an_image_that_is_skipped_is_counted_and_named(jobs):
    handle = jobs["class folders, one image of 102 broken"]
    ended(handle)
    lines = [
        line.text for event in handle.watch() if isinstance(event.payload, LogBatch) for line in event.payload.lines
    ]

    assert 1 == handle.metrics(["data/unreadable"])["data/unreadable"].values[-1]
    assert ["left out, because it cannot be read: b/4.jpg"] == [line for line in lines if "left out" in line]


def test_bad_jobs_keep_no_place_in_the_queue_and_the_worker_goes_on(jobs, client):
    ran = [ended(handle) for handle in jobs.values()]
    [node] = client.nodes()

    # Nothing was tried again, and nobody had to start the worker again.
    assert [1] * len(jobs) == [len(job.attempts) for job in ran]
    assert {node.id} == {job.attempts[0].node for job in ran}
    assert ["", ""] == [slot.job_id for slot in node.slots]


def empty_class(root: Path) -> JobSpec:
    (root / "train" / "d").mkdir(parents=True)
    return in_folders(root)


def one_class(root: Path) -> JobSpec:
    (root / "train" / "only").mkdir(parents=True)
    (root / "train" / "only" / "0.jpg").write_bytes(picture(0))
    return spec(ImageFolder(train=str(root / "train")))


def missing_image(root: Path) -> JobSpec:
    job = in_a_csv(root)
    (root / "images" / "b" / "1.jpg").unlink()
    return job


@pytest.mark.parametrize(
    ("build", "field", "description"),
    [
        (empty_class, "spec.image_folder.train", "has the empty class folder 'd'; remove it, or add images"),
        (one_class, "spec.image_folder.train", "has only one class; add images of another"),
        (missing_image, "spec.image_manifest.train", r"row 3: there is no image .*/b/1\.jpg; add it, or take the row"),
    ],
    ids=["an empty class folder", "one class only", "a table that names a missing image"],
)
def test_what_the_server_sees_is_refused_by_its_field_and_leaves_no_job(client, root, build, field, description):
    before = [job.id for job in client.list()]

    with pytest.raises(InvalidSpecError) as refused:
        client.submit(build(folder_for(root, build.__name__)))

    [violation] = refused.value.violations
    assert field == violation.field
    assert re.search(description, violation.description), violation.description
    assert before == [job.id for job in client.list()]


@pytest.fixture
def full_disk(disk: Path, jobs: dict[str, JobHandle]) -> Iterator[Path]:
    """The disk of the artifacts, with 64 KiB left, once nobody writes to it."""
    if not disk.is_mount():
        pytest.skip("this user may not mount a small disk to fill")
    for handle in jobs.values():
        ended(handle)
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(disk) - (64 << 10))
    yield disk
    filler.unlink(missing_ok=True)


def free_bytes(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize


def test_a_full_disk_ends_the_attempt_nothing_of_it_stays_there_and_the_job_goes_on_once_there_is_room(
    client, root, full_disk
):
    before = free_bytes(full_disk)
    job = client.submit(in_folders(folder_for(root, "full")))
    while not (waiting := job.job()).retry_time:
        assert not waiting.terminal, waiting.state_reason
        time.sleep(0.1)
    left = free_bytes(full_disk)
    (full_disk / "filler").unlink()
    done = ended(job)

    first, last = done.attempts
    assert first.cause is Cause.STORAGE
    assert re.search("the storage failed: .*[Nn]o space left on device", first.outcome), first.outcome
    # Empty folders may take a page each.
    assert left > before - (32 << 10)
    assert (State.SUCCEEDED, None) == (done.state, last.cause)
