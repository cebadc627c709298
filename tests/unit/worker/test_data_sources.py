"""Which images a job has: splits of class folders, and the datasets of torchvision."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from podium.jobs.catalogue import datasets
from podium.jobs.datasets import DatasetError, index
from podium.jobs.spec import Dataset, ImageFolder, ImageManifest, JobSpec, TorchvisionDataset
from podium.worker.fit import run
from podium.worker.fit.data import Splits, open_splits, shuffled
from podium.worker.fit.local import LocalContext

DIGITS = next(card.classes for card in datasets() if card.name == "MNIST")


def test_every_epoch_has_its_own_order_and_every_seed_too():
    assert torch.equal(shuffled(50, 1, 2), shuffled(50, 1, 2))
    assert not torch.equal(shuffled(50, 1, 2), shuffled(50, 1, 3))
    assert not torch.equal(shuffled(50, 1, 2), shuffled(50, 2, 2))
    assert list(range(50)) == sorted(shuffled(50, 1, 2).tolist())


def test_val_fraction_takes_the_same_share_of_every_class_and_nothing_twice(images, job):
    path = images("train", classes=4, each=8)
    spec = job(path).spec
    splits = open_splits(replace(spec, dataset=ImageFolder(train=path, val_fraction=0.25)), index(path).classes)

    assert torch.bincount(splits.val.labels).tolist() == [2, 2, 2, 2]
    assert list(range(32)) == sorted([*splits.train.positions.tolist(), *splits.val.positions.tolist()])


def test_a_class_that_train_lacks_is_an_error(images, job):
    dataset = ImageFolder(train=images("train", classes=2), val=images("val", classes=3))

    with pytest.raises(DatasetError, match="has the class 'class2'"):
        open_splits(job(dataset.train, dataset=dataset).spec, ["class0", "class1"])


def test_val_may_lack_classes(images, job):
    dataset = ImageFolder(train=images("train", classes=3), val=images("val", classes=2))
    spec = job(dataset.train, dataset=dataset).spec

    assert set(open_splits(spec, ["class0", "class1", "class2"]).val.labels.tolist()) == {0, 1}


def test_images_that_are_trained_on_and_evaluated_on_are_told(images, job, tmp_path):
    path = Path(images("train", classes=2, each=4))
    (tmp_path / "once-more").symlink_to(path)
    rows = [f"class{label}/{place}.png,class{label}" for label in (0, 1) for place in range(4)]
    (path / "train.csv").write_text("\n".join(["path,label", *rows[:6]]))
    (path / "test.csv").write_text("\n".join(["path,label", *rows[4:]]))

    def told(dataset: Dataset) -> list[str]:
        return list(open_splits(job(str(path), dataset=dataset).spec, ["class0", "class1"]).leaks())

    assert [] == told(ImageFolder(train=str(path), test=images("test", classes=2), val_fraction=0.25))
    (twice,) = told(ImageFolder(train=str(path), test=str(tmp_path / "once-more"), val_fraction=0.25))
    assert twice.startswith("6 of 8 images of test are images of train, too, class0/")
    (rows_twice,) = told(ImageManifest(train=str(path / "train.csv"), val=str(path / "test.csv")))
    assert rows_twice.startswith("2 of 4 images of val are images of train, too, class1/0.png among them")


def test_a_job_whose_test_images_are_trained_on_says_so_in_its_log(images, job, tmp_path):
    train = images("train")
    dataset = ImageFolder(train=train, test=train)
    context = LocalContext(tmp_path / "run")

    run(job(train, dataset=dataset, epochs=1), context, device=torch.device("cpu"), threads=1)

    assert any("images of test are images of train, too" in line for line in context.lines)


def idx(array: np.ndarray) -> bytes:
    """As MNIST's files are written."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> str:
    """Six images to train on and four to test on; the digit is the gray of its image."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, labels in (("train", [0, 1, 2, 0, 1, 2]), ("t10k", [2, 1, 0, 9])):
        numbers = np.array(labels, dtype=np.uint8)
        images = np.broadcast_to(numbers[:, None, None], (len(labels), 28, 28))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(numbers))
    return str(tmp_path)


def named(job_spec: JobSpec, name: str, root: str, classes: tuple[str, ...]) -> Splits:
    return open_splits(replace(job_spec, dataset=TorchvisionDataset(name=name, root=root, val_fraction=0.5)), classes)


@pytest.fixture
def spec(images, job):
    return job(images("train")).spec


def test_a_dataset_of_torchvision_is_split_like_any_other_and_keeps_its_own_test_split(mnist, spec):
    splits = named(spec, "MNIST", mnist, DIGITS)

    assert [0, 1, 2] == sorted(splits.train.labels.tolist()) == sorted(splits.val.labels.tolist())
    assert splits.test is not None
    assert [2, 1, 0, 9] == splits.test.labels.tolist()
    assert (9, 9, 9) == splits.test.images.image(3).getpixel((0, 0))
    assert "image 3 of MNIST test" == splits.test.images.name(3)


def test_the_digest_of_an_array_is_that_of_its_pixels(mnist, spec):
    before = named(spec, "MNIST", mnist, DIGITS)
    file = Path(mnist) / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    after = named(spec, "MNIST", mnist, DIGITS)

    assert before.train.images.digest != after.train.images.digest
    assert before.test is not None
    assert after.test is not None
    assert before.test.images.digest == after.test.images.digest


def test_the_classes_of_a_dataset_of_torchvision_are_its_own(mnist, spec):
    with pytest.raises(DatasetError, match="the classes of MNIST are those of torchvision, in its order"):
        named(spec, "MNIST", mnist, tuple(reversed(DIGITS)))


@pytest.mark.parametrize("card", datasets(), ids=lambda card: card.name)
def test_a_dataset_that_is_not_there_names_the_folder_that_torchvision_expects(tmp_path, spec, card):
    with pytest.raises(DatasetError, match=rf"{card.name}.* in {tmp_path}.*: |needs the package scipy") as caught:
        named(spec, card.name, str(tmp_path), card.classes)

    assert "download=True" not in str(caught.value)


def test_a_pickle_whose_digest_torchvision_does_not_know_is_never_opened(tmp_path, spec):
    trap = tmp_path / "sprung"
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(f"cpathlib\nPath\n(V{trap}\ntRp0\n0cpathlib\nPath.touch\n(g0\ntR.".encode())
    card = next(card for card in datasets() if card.name == "CIFAR10")

    with pytest.raises(DatasetError, match="CIFAR10 is not there as torchvision keeps it"):
        named(spec, "CIFAR10", str(tmp_path), card.classes)

    assert not trap.exists()


def test_files_of_a_dataset_of_torchvision_are_judged_like_all_others(tmp_path, spec):
    card = next(card for card in datasets() if card.name == "EuroSAT")
    for name in card.classes:
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.jpg")
    (tmp_path / "eurosat" / "2750" / card.classes[0] / "0.jpg").write_bytes(b"no image")

    splits = named(spec, "EuroSAT", str(tmp_path), card.classes)

    assert splits.test is None
    assert len(card.classes) == len(splits.train) == len(splits.val)
    with pytest.raises(DatasetError, match=rf"2750/{card.classes[0]}/0\.jpg is no readable image"):
        splits.train.images.image(0)
