"""What a list of datasets shows of a folder, and that it is what a spec can name."""

import asyncio
import csv
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from podium.client import DatasetInfo
from podium.jobs.catalogue import datasets
from podium.jobs.datasets import expand_shards, scan_split
from podium.jobs.spec import ImageFolder, ImageManifest, TorchvisionDataset, WebDataset
from podium.server.services.datasets import Datasets, discover


def folder(root: Path, *classes: str) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "1.jpg").write_bytes(b"x")
    return root


def tar(path: Path, names: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def found(root: Path) -> list[DatasetInfo]:
    seen = discover([str(root)])
    assert seen.whole
    return [
        DatasetInfo(path=one.path, kind=one.kind, splits=one.splits, classes=one.classes, name=one.name)
        for one in seen.datasets
    ]


def test_folders_of_class_folders_are_one_dataset_with_its_splits(tmp_path):
    for split in ("validation", "test", "train"):
        folder(tmp_path / "pets" / split, "cat", "dog")

    (pets,) = found(tmp_path)

    assert (("train", "validation", "test"), 2) == (pets.splits, pets.classes)
    root = tmp_path / "pets"
    dataset = ImageFolder(train=f"{root}/train", val=f"{root}/validation", test=f"{root}/test")
    assert pets.dataset == dataset
    assert {"cat": 1, "dog": 1} == scan_split(dataset, "val")


def test_a_folder_of_class_folders_is_one_without_splits_and_its_classes_are_none(tmp_path):
    folder(tmp_path / "deep" / "down" / "birds", "crow", "jay", "wren")

    (birds,) = found(tmp_path)

    assert ((), 3) == (birds.splits, birds.classes)
    assert birds.dataset == ImageFolder(train=f"{tmp_path}/deep/down/birds")


def test_a_test_split_alone_is_a_dataset_of_its_own(tmp_path):
    folder(tmp_path / "test", "a", "b")

    assert [f"{tmp_path}/test"] == [one.path for one in found(tmp_path)]


def test_tars_of_class_folders_are_told_from_shards_by_what_is_in_them(tmp_path):
    for split in ("train", "test"):
        tar(tmp_path / f"pets-{split}.tar", ["cat/1.jpg", "dog/1.jpg"])
    for number in range(8, 12):
        tar(tmp_path / f"web-train-{number:03}.tar", ["0.jpg", "0.cls", "1.jpg", "1.cls"])
    tar(tmp_path / "web-val-000.tar", ["0.jpg", "0.json"])
    tar(tmp_path / "notes.tar", ["readme.txt"])

    pets, web = sorted(found(tmp_path), key=lambda one: one.kind)

    assert pets.dataset == ImageFolder(train=f"{tmp_path}/pets-train.tar", test=f"{tmp_path}/pets-test.tar")
    assert web.dataset == WebDataset(
        train=(f"{tmp_path}/web-train-{{008..011}}.tar",), val=(f"{tmp_path}/web-val-000.tar",)
    )
    assert 4 == len(expand_shards(web.dataset.train))


def test_a_gap_in_the_shards_makes_two_patterns(tmp_path):
    for number in (0, 1, 3):
        tar(tmp_path / f"train{number}.tar", ["0.jpg", "0.cls"])

    (web,) = found(tmp_path)

    assert web.dataset == WebDataset(train=(f"{tmp_path}/train3.tar", f"{tmp_path}/train{{0..1}}.tar"))


def test_tables_whose_first_row_is_an_image_are_datasets_and_others_are_not(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"x")
    for name, rows in {
        "train.csv": [("path", "label"), ("1.jpg", "cat")],
        "test.csv": [("path", "label"), ("1.jpg", "cat")],
        "prices.csv": [("date", "price"), ("monday", "3")],
        "gone.csv": [("path", "label"), ("2.jpg", "cat")],
        "out.csv": [("path", "label"), ("../../etc/passwd", "cat")],
    }.items():
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    (table,) = found(tmp_path)

    assert table.dataset == ImageManifest(train=f"{tmp_path}/train.csv", test=f"{tmp_path}/test.csv")


@pytest.mark.parametrize("card", datasets(), ids=lambda card: card.name)
def test_a_dataset_of_torchvision_is_known_by_what_is_kept_below_its_root(card, tmp_path):
    kept = tmp_path / card.kept_in
    if kept.suffix:
        kept.write_bytes(b"x")
    else:
        folder(kept, "0", "1")

    (one,) = found(tmp_path)

    assert one.dataset == TorchvisionDataset(name=card.name, root=str(tmp_path))
    assert (len(card.classes), card.test is not None) == (one.classes, "test" in one.splits)


def test_links_and_hidden_folders_are_not_followed(tmp_path):
    outside = folder(tmp_path / "outside", "a", "b")
    inside = tmp_path / "inside"
    folder(inside / ".hidden", "a", "b")
    (inside / "link").symlink_to(outside)
    (inside / "circle").symlink_to(inside)
    folder(inside / "half" / "real", "a")
    (inside / "half" / "b").symlink_to(outside / "b")

    assert [] == found(inside)


def test_names_that_cannot_be_shown_are_left_out(tmp_path):
    folder(tmp_path / "bad\x1b[31m", "a", "b")

    assert [] == found(tmp_path)


def test_what_lies_too_deep_is_not_found_and_that_is_said(tmp_path):
    folder(tmp_path.joinpath("a", "b", "c", "d", "e", "f"), "x", "y")

    seen = discover([str(tmp_path)])

    assert ((), False) == (seen.datasets, seen.whole)


def test_a_search_that_costs_too_much_ends_and_says_so(tmp_path, monkeypatch):
    for number in range(10):
        folder(tmp_path / f"set{number}", "a", "b")
    monkeypatch.setattr("podium.server.services.datasets._ENTRIES", 30)

    seen = discover([str(tmp_path)])

    assert 0 < len(seen.datasets) < 10
    assert not seen.whole


def test_classes_that_are_too_many_to_count_are_not_told_and_that_is_said(tmp_path, monkeypatch):
    folder(tmp_path, *"abcdefgh")
    monkeypatch.setattr("podium.server.services.datasets._ENTRIES_OF_ONE", 5)

    seen = discover([str(tmp_path)])

    assert ([0], False) == ([one.classes for one in seen.datasets], seen.whole)


def test_what_was_found_is_told_again_for_a_while_and_then_looked_for_anew(tmp_path):
    now = 0.0
    datasets = Datasets([str(tmp_path)], clock=lambda: now)

    async def names(contains: str = "") -> list[str]:
        return [Path(one.path).name for one in (await datasets.list(contains)).datasets]

    async def asking() -> None:
        nonlocal now
        folder(tmp_path / "Pets", "a", "b")
        assert [["Pets"]] * 3 == [*await asyncio.gather(names(), names("pET"), names())]
        folder(tmp_path / "birds", "a", "b")
        assert ["Pets"] == await names()
        now = 31.0
        assert (["Pets", "birds"], ["birds"]) == (await names(), await names("bird"))

    asyncio.run(asking())


def test_more_than_a_message_can_hold_is_cut_and_that_is_said(tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        folder(tmp_path / name, "a", "b")
    for limit, value in (("MOST", 2), ("_MOST_CHARACTERS", 2 * len(str(tmp_path)) + 10)):
        with monkeypatch.context() as patch:
            patch.setattr(f"podium.server.services.datasets.{limit}", value)
            seen = asyncio.run(Datasets([str(tmp_path)]).list(""))
        assert (2, False) == (len(seen.datasets), seen.whole)


def test_a_root_that_is_not_there_or_no_folder_is_empty(tmp_path):
    (tmp_path / "file").write_bytes(b"x")

    assert [] == list(discover([f"{tmp_path}/none", f"{tmp_path}/file"]).datasets)
