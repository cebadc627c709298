"""Shards as WebDataset writes them, and the braces that name many."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given
from hypothesis import strategies as st

from podium.jobs.datasets import DatasetError, SplitIndex, expand_shards, read_bytes, split_index
from podium.jobs.datasets._braces import expand
from podium.jobs.spec import WebDataset

CLASSES = ("rose", "iris", "7")


def tar(members: Mapping[str, bytes | str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def shard(folder: Path, members: Mapping[str, bytes | str], name: str = "0.tar") -> str:
    (folder / name).write_bytes(tar(members))
    return str(folder / name)


def indexed(*shards: str) -> SplitIndex:
    split = split_index(WebDataset(train=("/unread",), val=shards), "val", CLASSES)
    assert split is not None
    return split


def refusal(*shards: str) -> str:
    with pytest.raises(DatasetError) as caught:
        indexed(*shards)
    assert caught.value.message.isprintable()
    return caught.value.message


def test_an_image_belongs_to_the_label_of_its_name_up_to_the_first_dot(tmp_path):
    split = indexed(
        shard(
            tmp_path,
            {
                "a/0.cls": "1",
                "a/0.jpg": b"first",
                "b/0.seg.png": b"no image of the sample",
                "b/0.PNG": b"second",
                "b/0.txt": "a caption",
                "b/0.cls": " rose\n",
                ".hidden/0.jpg": b"hidden",
            },
        )
    )

    assert [("iris", "a/0.jpg"), ("rose", "b/0.PNG")] == [(entry.class_name, entry.name) for entry in split.entries]
    assert [b"first", b"second"] == [read_bytes(entry) for entry in split.entries]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"cls": "0"}, "rose"),
        ({"cls": "iris"}, "iris"),
        ({"json": {"cls": 1, "width": 3}}, "iris"),
        ({"json": {"label": "iris"}}, "iris"),
        ({"json": {"label": "7"}}, "7"),
        ({"json": {"cls": 0, "label": "iris"}}, "rose"),
        ({"cls": "1", "json": {"caption": "no label in here"}}, "iris"),
    ],
)
def test_a_whole_number_is_a_place_in_the_classes_and_text_is_a_name(labels, expected, tmp_path):
    texts = {f"x.{kind}": told if isinstance(told, str) else json.dumps(told) for kind, told in labels.items()}

    assert (expected,) == indexed(shard(tmp_path, {"x.jpg": b"1", **texts})).classes


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"x.jpg": b"1"}, "x in {shard} has an image and no label; put x.cls or x.json beside it"),
        ({"x.cls": "0"}, "x in {shard} has a label and no image"),
        ({"x.jpg": b"1", "x.png": b"2", "x.cls": "0"}, "x.png in {shard} is the second of its kind"),
        ({"x.jpg": b"1", "x.cls": "3"}, "says 3, but the 3 classes have numbers from 0 on"),
        ({"x.jpg": b"1", "x.cls": "-1"}, "says '-1', which is none of the job's classes"),
        ({"x.jpg": b"1", "x.json": '{"cls": -1}'}, "says -1, but the 3 classes have numbers from 0 on"),
        (
            {"x.jpg": b"1", "x.cls": "tulip"},
            "the .cls of x in {shard} says 'tulip', which is none of the job's classes",
        ),
        ({"x.jpg": b"1", "x.cls": ""}, "says '', which is none"),
        ({"x.jpg": b"1", "x.cls": b"\xff"}, "cannot be read"),
        ({"x.jpg": b"1", "x.cls": "\x1b[31m"}, r"says '\x1b[31m', which is none"),
        ({"x.jpg": b"1", "x.json": "{"}, "the .json of x in {shard} cannot be read"),
        ({"x.jpg": b"1", "x.json": "[" * 100_000}, "cannot be read"),
        ({"x.jpg": b"1", "x.json": "{}"}, 'there is no number or text under "cls" or "label"'),
        ({"x.jpg": b"1", "x.json": '{"cls": true}'}, "there is no number or text"),
        ({"x.jpg": b"1", "x.json": '{"cls": 1.0}'}, "there is no number or text"),
        ({"x.jpg": b"1", "x.json": "1" * 5000}, "cannot be read"),
        ({"x.jpg": b"1", "x.cls": "0" * (1 << 21)}, "has 2097152 bytes; a label is a class's number or name"),
        ({"notes.txt": "x"}, "holds no images"),
    ],
)
def test_a_sample_that_is_wrong_is_named_with_the_remedy(members, told, tmp_path):
    path = shard(tmp_path, members)

    assert told.replace("{shard}", path) in refusal(path)


def test_a_label_that_is_the_number_of_one_class_and_the_name_of_another_is_refused(tmp_path):
    path = shard(tmp_path, {"x.jpg": b"1", "x.cls": "1"})

    with pytest.raises(DatasetError, match="says 1, which is the number of class '0' and the name of another"):
        split_index(WebDataset(train=(path,)), "train", ("1", "0"))


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b" + bytes(600), b"no tar" * 200, tar({"x.jpg": b"1" * 2000})[:1500]])
def test_a_shard_that_is_no_whole_tar_is_refused_by_its_name(data, tmp_path):
    (tmp_path / "0.tar").write_bytes(data)

    assert f"{tmp_path}/0.tar" in refusal(f"{tmp_path}/0.tar")


@pytest.mark.parametrize("missing", ["{}/9.tar", "memory://nowhere/{}/9.tar"])
def test_a_missing_shard_is_named(missing, tmp_path):
    missing = missing.replace("{}", str(tmp_path))

    assert f"shard {missing} does not exist; check the name and its braces" in refusal(missing)


def test_train_must_have_every_class(tmp_path):
    path = shard(tmp_path, {"x.jpg": b"1", "x.cls": "0"})

    with pytest.raises(DatasetError, match="has no image of the class 'iris'; add one, or take it out of classes"):
        split_index(WebDataset(train=(path,)), "train", CLASSES)


def test_shards_by_uri_are_read_like_files(tmp_path):
    folder = f"/{uuid4()}"
    files = {
        f"{number:02}.tar": tar({f"x{number}.jpg": f"image {number}", f"x{number}.cls": "0"}) for number in range(12)
    }
    for name, data in files.items():
        MemoryFileSystem().pipe_file(f"{folder}/{name}", data)
        (tmp_path / name).write_bytes(data)

    remote, local = indexed(f"memory:/{folder}/{{00..11}}.tar"), indexed(f"{tmp_path}/{{00..11}}.tar")

    assert [f"image {number}".encode() for number in range(12)] == [read_bytes(entry) for entry in remote.entries]
    assert [(e.name, e.offset, e.size) for e in remote.entries] == [(e.name, e.offset, e.size) for e in local.entries]
    assert remote.digest != local.digest


def test_the_digest_of_a_uri_changes_with_its_file(tmp_path):
    uri, digests = f"memory://{uuid4()}/0.tar", set()
    for image in (b"first", b"again"):
        MemoryFileSystem().pipe_file(uri.removeprefix("memory:/"), tar({"x.jpg": image, "x.cls": "0"}))
        digests.add(indexed(uri).digest)

    assert 2 == len(digests)


def test_a_shard_that_is_named_twice_is_refused():
    with pytest.raises(DatasetError, match=r"/a/1\.tar is named twice"):
        expand_shards(["/a/{0..2}.tar", "file:///a/1.tar"])


def test_too_many_shards_are_refused_without_making_them_all():
    with pytest.raises(DatasetError, match="more than 100,000"):
        expand_shards([f"/{letter}/{{0..99998}}.tar" for letter in "abcdefghij" * 1000])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{09..11}", ["09", "10", "11"]),
        ("{9..011}", ["009", "010", "011"]),
        ("{0..1}", ["0", "1"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("{,x}y", ["y", "xy"]),
        ("{3..3}", ["3"]),
    ],
)
def test_braces_are_ranges_or_choices(pattern, names):
    assert tuple(names) == expand(pattern)


@pytest.mark.parametrize(
    "pattern", ["{", "}", "a}b{c", "{{1..2}}", "{}", "{5}", "{a..c}", "{1..}", "{2..1}", "{-1..2}"]
)
def test_braces_that_say_nothing_are_refused(pattern):
    with pytest.raises(ValueError, match="write"):
        expand(pattern)


@pytest.mark.parametrize("pattern", ["{0..999999999}", "{0..999}{0..999}", "{1..2}" * 600])
def test_braces_that_stand_for_too_much_are_refused_before_they_are_expanded(pattern):
    with pytest.raises(ValueError, match="more than 100,000 shards"):
        expand(pattern)


@given(st.text("ab{}.,019", max_size=12))
@example("{1..2}{a,b}")
def test_what_braces_stand_for_has_no_braces_left_and_fits_the_text_around_them(pattern):
    try:
        names = expand(pattern)
    except ValueError:
        return
    before, after = pattern.partition("{")[0], pattern.rpartition("}")[2]
    assert names
    assert all(not {"{", "}"} & set(name) and name.startswith(before) and name.endswith(after) for name in names)


@given(first=st.integers(0, 3000), more=st.integers(0, 50), width=st.integers(1, 6))
def test_a_range_has_both_its_ends_and_everything_between(first, more, width):
    pattern = f"{{{first:0{width}}..{first + more:0{width}}}}"

    assert list(range(first, first + more + 1)) == [int(name) for name in expand(pattern)]
    assert {len(name) >= width for name in expand(pattern)} == {True}
