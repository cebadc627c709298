"""What a spec may say about images and where they lie, kind by kind."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf import json_format

from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.jobs.blocking import on_loop
from podium.jobs.catalogue import datasets
from podium.jobs.datasets import Split
from podium.jobs.errors import InvalidSpecError, NotFoundError
from podium.jobs.store import MemoryStore
from podium.server.admission import Admission, Admitted
from podium.server.admission._paths import Places
from podium.server.admission._scans import Counts, Scanned

PREFIXES = ("s3://bucket/images", "https://data.example")


def admit(root: Path, dataset: Mapping[str, object], **changes: object) -> Admitted:
    rules = Admission(roots=[str(root)], uri_prefixes=PREFIXES, store=MemoryStore())
    return rules.admit(request_for(dataset, **changes))


def request_for(dataset: Mapping[str, object], **changes: object) -> CreateJobRequest:
    spec = {"backbone": "resnet50", "full": {}, "soft_sort": {}, **dataset, **changes}
    return json_format.ParseDict({"spec": spec}, CreateJobRequest())


def refused(root: Path, dataset: Mapping[str, object], **changes: object) -> dict[str, str]:
    with pytest.raises(InvalidSpecError) as caught:
        admit(root, dataset, **changes)
    return {violation.field: violation.description for violation in caught.value.violations}


def folder(root: Path, *classes: str) -> str:
    for name in classes:
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(b"1")
    return str(root)


def table(path: Path, *rows: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    return str(path)


def manifest(at: Path, **changes: object) -> dict[str, object]:
    folder(at / "images", "a", "b")
    train = table(at / "train.csv", "images/a/1.png,iris", "images/b/1.png,rose")
    return {"image_manifest": {"train": train, **changes}}


def test_the_classes_are_those_of_train_sorted_unless_they_are_declared(tmp_path):
    dataset = {"image_folder": {"train": folder(tmp_path, "b", "c", "a")}}

    assert ("a", "b", "c") == admit(tmp_path, dataset).classes
    assert ("c", "a", "b") == admit(tmp_path, dataset, classes=["c", "a", "b"]).classes


def test_classes_whose_names_no_message_would_hold_are_refused_where_they_come_from(tmp_path):
    names = [f"{number}{'n' * 190}" for number in range(12_000)]
    folder(tmp_path, "a")
    long = table(tmp_path / "long.csv", *(f"a/1.png,{name}" for name in names))
    shards = {"web_dataset": {"train": ["s3://bucket/images/a.tar"]}}

    assert "shorten them" in refused(tmp_path, {"image_manifest": {"train": long}})["spec.image_manifest.train"]
    assert "2097152 are the most" in refused(tmp_path, shards, classes=names)["spec.classes"]


def test_a_table_is_admitted_with_its_classes(tmp_path):
    assert ("iris", "rose") == admit(tmp_path, manifest(tmp_path)).classes


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("declared", [[], ["b", "a"]])
def test_a_class_that_the_job_does_not_have_is_a_violation_of_its_split(split, declared, tmp_path):
    train, other = folder(tmp_path / "train", "a", "b"), folder(tmp_path / "other", "a", "z")

    found = refused(tmp_path, {"image_folder": {"train": train, split: other}}, classes=declared)

    assert [f"spec.image_folder.{split}"] == list(found)
    assert "has the class 'z', which is none of the job's classes" in found[f"spec.image_folder.{split}"]


@pytest.mark.parametrize(
    ("declared", "told"),
    [(["a"], "has the class 'b', which is none of the job's classes"), (["a", "b", "z"], "no image of the class 'z'")],
)
def test_declared_classes_that_do_not_fit_train_are_a_violation_of_train(declared, told, tmp_path):
    found = refused(tmp_path, {"image_folder": {"train": folder(tmp_path, "a", "b")}}, classes=declared)

    assert told in found["spec.image_folder.train"]


def test_an_empty_class_folder_is_refused_by_its_name(tmp_path):
    train = folder(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()

    found = refused(tmp_path, {"image_folder": {"train": train}})

    assert f"{train} has the empty class folder 'c'; remove it, or add images" == found["spec.image_folder.train"]


def test_only_one_class_is_refused_where_it_was_said(tmp_path):
    dataset = {"image_manifest": {"train": table(tmp_path / "t.csv", "a/1.png,a")}}
    folder(tmp_path, "a")

    assert "has only one class" in refused(tmp_path, dataset)["spec.image_manifest.train"]
    assert "has only one class" in refused(tmp_path, dataset, classes=["a"])["spec.classes"]
    shards: Mapping[str, object] = {"web_dataset": {"train": ["s3://bucket/images/0.tar"]}}
    assert "has only one class" in refused(tmp_path, shards, classes=["a"])["spec.classes"]


def test_a_table_that_names_a_missing_image_is_refused_with_its_row(tmp_path):
    dataset = manifest(tmp_path, val=table(tmp_path / "val.csv", "images/a/9.png,iris"))

    found = refused(tmp_path, dataset)

    assert ["spec.image_manifest.val"] == list(found)
    assert f"row 2: there is no image {tmp_path}/images/a/9.png" in found["spec.image_manifest.val"]


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"label_column": "kind"}, "train", "has no column 'kind'; it has path, label"),
        ({"label_column": "path"}, "label_column", "is the column of the paths"),
        ({"root": "/etc"}, "root", "outside the allowed roots"),
    ],
)
def test_columns_and_root_of_a_table_are_named_when_they_are_wrong(changes, field, told, tmp_path):
    found = refused(tmp_path, manifest(tmp_path, **changes))

    assert [f"spec.image_manifest.{field}"] == list(found)
    assert told in found[f"spec.image_manifest.{field}"]


@pytest.mark.parametrize("field", ["train", "val", "test"])
@pytest.mark.parametrize("kind", ["image_folder", "image_manifest"])
def test_every_split_must_lie_below_the_roots_and_be_there(kind, field, tmp_path):
    good = folder(tmp_path / "good", "a", "b")
    if kind == "image_manifest":
        good = table(tmp_path / "good" / "t.csv", "a/1.png,a", "b/1.png,b")
    for path, told in (
        (f"{tmp_path}/../x", "outside the allowed roots"),
        ("s3://bucket/images", "not an absolute path"),
    ):
        found = refused(tmp_path, {kind: {"train": good, field: path}})
        assert [f"spec.{kind}.{field}"] == list(found)
        assert told in found[f"spec.{kind}.{field}"]
    with pytest.raises(NotFoundError, match=f"spec.{kind}.{field}: .* does not exist on the server"):
        admit(tmp_path, {kind: {"train": good, field: f"{tmp_path}/nothing"}})


def test_shards_are_admitted_by_path_and_by_uri_and_not_read(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.tar").write_bytes(b"not read here")
    train = [f"{tmp_path}/{{0..1}}.tar", f"file://{tmp_path}/2.tar", "s3://bucket/images/{a,b}/{000..146}.tar"]

    admitted = admit(tmp_path, {"web_dataset": {"train": train}}, classes=["b", "a"])

    assert ("b", "a") == admitted.classes


@pytest.mark.parametrize(
    ("shard", "told"),
    [
        (
            "s3://bucket/other/0.tar",
            "lies below no URI that this server allows; use s3://bucket/images or https://data",
        ),
        ("s3://bucket/images/{..,x}/0.tar", "has a . or .. in its path"),
        ("s3://bucket/images/%2e%2e/0.tar", "has a . or .. in its path"),
        ("https://data.example@evil.example/0.tar", "names a user or a password"),
        ("https://data.example:secret@data.example/0.tar", "names a user or a password"),
        ("s3://bucket/images/0.tar::https://evil.example/0.tar", "chains file systems"),
        ("file:///etc/passwd", "lies outside the allowed roots"),
        ("file://etc/passwd", "is not an absolute path"),
        ("0.tar", "is not an absolute path"),
        ("{root}/{0..1}.tar.{", "braces that nest or do not close"),
        ("s3://bucket/images/{0..99999999}.tar", "more than 100,000 shards"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_shard_that_may_not_be_read_is_a_violation_of_its_split(split, shard, told, tmp_path):
    shard = shard.replace("{root}", str(tmp_path))
    dataset: Mapping[str, object] = {"web_dataset": {"train": ["s3://bucket/images/0.tar"], split: [shard]}}

    found = refused(tmp_path, dataset, classes=["a", "b"])

    assert [f"spec.web_dataset.{split}"] == list(found)
    assert told in found[f"spec.web_dataset.{split}"]


def test_a_missing_shard_of_a_range_is_named(tmp_path):
    (tmp_path / "0.tar").touch()

    with pytest.raises(NotFoundError, match=rf"spec\.web_dataset\.train: {tmp_path}/1\.tar does not exist"):
        admit(tmp_path, {"web_dataset": {"train": [f"{tmp_path}/{{0..2}}.tar"]}}, classes=["a", "b"])


def test_shards_need_declared_classes(tmp_path):
    found = refused(tmp_path, {"web_dataset": {"train": ["s3://bucket/images/0.tar"]}})

    assert ["spec.classes"] == list(found)


def test_a_server_without_prefixes_says_how_to_allow_a_uri(tmp_path):
    request = {"backbone": "resnet50", "full": {}, "soft_sort": {}, "classes": ["a", "b"]}
    request["web_dataset"] = {"train": ["s3://bucket/0.tar"]}
    rules = Admission(roots=[str(tmp_path)], store=MemoryStore())

    with pytest.raises(InvalidSpecError, match="it allows none: start it with PODIUM_URI_PREFIXES"):
        rules.admit(json_format.ParseDict({"spec": request}, CreateJobRequest()))


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("s3://bucket/other/w.safetensors", "lies below no URI"),
        ("s3://bucket/images/../w.safetensors", "has a . or .."),
        ("w.safetensors", "is not an absolute path"),
    ],
)
def test_weights_by_uri_must_lie_below_what_the_server_allows(file, told, tmp_path):
    found = refused(tmp_path, {"image_folder": {"train": folder(tmp_path, "a", "b")}}, weights={"file": file})

    assert ["spec.weights.file"] == list(found)
    assert told in found["spec.weights.file"]


def test_weights_by_an_allowed_uri_are_admitted(tmp_path):
    dataset: Mapping[str, object] = {"image_folder": {"train": folder(tmp_path, "a", "b")}}

    assert admit(tmp_path, dataset, weights={"file": "s3://bucket/images/w.safetensors"})


@pytest.mark.parametrize("card", datasets(), ids=lambda card: card.name)
def test_every_dataset_of_torchvision_is_admitted_with_its_classes(card, tmp_path):
    dataset: Mapping[str, object] = {"torchvision_dataset": {"name": card.name, "root": str(tmp_path)}}

    assert card.classes == admit(tmp_path, dataset).classes
    assert card.classes == admit(tmp_path, dataset, classes=card.classes).classes


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CIFAR1000", "'CIFAR1000' is not among the datasets; did you mean CIFAR100"),
        ("cifar10", "did you mean CIFAR10"),
        ("ImageNet", "write one of CIFAR10, CIFAR100"),
    ],
)
def test_an_unknown_dataset_of_torchvision_lists_those_that_are_near(name, told, tmp_path):
    found = refused(tmp_path, {"torchvision_dataset": {"name": name, "root": str(tmp_path)}})

    assert ["spec.torchvision_dataset.name"] == list(found)
    assert told in found["spec.torchvision_dataset.name"]


def test_the_root_of_a_dataset_of_torchvision_must_lie_below_the_roots(tmp_path):
    found = refused(tmp_path, {"torchvision_dataset": {"name": "CIFAR10", "root": "/etc"}})

    assert ["spec.torchvision_dataset.root"] == list(found)


def test_a_dataset_of_torchvision_takes_no_other_classes_than_its_own(tmp_path):
    dataset: Mapping[str, object] = {"torchvision_dataset": {"name": "STL10", "root": str(tmp_path)}}
    own = admit(tmp_path, dataset).classes

    for classes in ((*own, "zebra"), own[:-1], own[::-1]):
        found = refused(tmp_path, dataset, classes=classes)
        assert {"spec.classes": "the classes of STL10 are its own, in its order; leave classes out"} == found


def test_a_dataset_whose_disk_hangs_takes_no_thread_from_other_calls_however_often_it_is_submitted(tmp_path):
    began, may_end = threading.Event(), threading.Event()
    train = folder(tmp_path / "train", "a", "b")

    def scan(dataset: Scanned, split: Split) -> Counts:
        began.set()
        assert may_end.wait(20)
        return {"a": 1, "b": 1}

    admission = Admission(roots=[str(tmp_path)], store=MemoryStore(), scan=scan)
    request = request_for({"image_folder": {"train": train}})

    async def main() -> Sequence[Admitted]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        calls = [asyncio.create_task(on_loop(admission.admit, request)) for _ in range(4)]
        try:
            # One caller goes; the others are told all the same.
            while not began.is_set():
                await asyncio.sleep(0.001)
            calls.pop(0).cancel()
            async with asyncio.timeout(2):
                assert 7 == await asyncio.to_thread(lambda: 7)
        finally:
            may_end.set()
        return await asyncio.gather(*calls)

    assert [("a", "b")] * 3 == [admitted.classes for admitted in asyncio.run(main())]


@pytest.mark.parametrize(
    "spec",
    [
        {"torchvision_dataset": {"name": "CIFAR10", "root": "/data"}},
        {"image_folder": {"train": "/data"}, "weights": {"file": "/data/w.pth"}},
    ],
    ids=lambda spec: [*spec][-1],
)
def test_nor_does_a_root_of_torchvision_or_a_file_of_weights_whose_disk_hangs(spec, tmp_path, monkeypatch):
    began, may_end = threading.Event(), threading.Event()

    def check_path(*arguments: object) -> bool:
        began.set()
        return may_end.wait(20)

    monkeypatch.setattr(Places, "check_path", check_path)
    monkeypatch.setattr("podium.server.admission.check_weights_file", check_path)
    admission = Admission(roots=(), store=MemoryStore(), scan=lambda dataset, split: {"a": 1, "b": 1})
    request = request_for(spec)

    async def main() -> Sequence[Admitted]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        calls = [asyncio.create_task(on_loop(admission.admit, request)) for _ in range(3)]
        try:
            while not began.is_set():
                await asyncio.sleep(0.001)
            async with asyncio.timeout(2):
                assert 7 == await asyncio.to_thread(lambda: 7)
        finally:
            may_end.set()
        return await asyncio.gather(*calls)

    assert 3 == len(asyncio.run(main()))
