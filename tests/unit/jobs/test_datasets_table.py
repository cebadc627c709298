"""Tables of images: what they hold, and every way in which a row can be wrong."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from podium.jobs.datasets import ROWS_AT_THE_DOOR, DatasetError, read_bytes, scan_split, split_index
from podium.jobs.datasets import _table as table_module
from podium.jobs.spec import ImageManifest

ROWS = [("b/1.jpg", "rose"), ("a/1.jpg", "iris"), ("a/2.PNG", "rose")]


def images(root: Path, names: Iterable[str] = ("a/1.jpg", "a/2.PNG", "b/1.jpg")) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    return root


def written(path: Path, text: str | bytes) -> ImageManifest:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ImageManifest(train=str(path))


def as_csv(path: Path, rows: Iterable[Iterable[str]]) -> ImageManifest:
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *rows])
    return written(path, text.getvalue())


def as_parquet(table: Path, columns: dict[str, Any]) -> ImageManifest:
    parquet.write_table(pyarrow.table(columns), table)
    return ImageManifest(train=str(table))


def refusal(manifest: ImageManifest, *, at_the_door: bool = True) -> str:
    with pytest.raises(DatasetError) as caught:
        split_index(manifest, "train", ())
    if at_the_door:
        with pytest.raises(DatasetError) as told:
            scan_split(manifest, "train")
        assert caught.value.message == told.value.message
    assert caught.value.message.isprintable()
    return caught.value.message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_gives_its_images_sorted_by_class_and_name(kind, tmp_path):
    paths, labels = zip(*ROWS, strict=True)
    images(tmp_path)
    manifest = (
        as_csv(tmp_path / "t.csv", ROWS)
        if kind == "csv"
        else as_parquet(tmp_path / "t.parquet", {"path": paths, "label": labels})
    )

    split = split_index(manifest, "train", ())

    assert split is not None
    assert [("iris", "a/1.jpg"), ("rose", "a/2.PNG"), ("rose", "b/1.jpg")] == [
        (entry.class_name, entry.name) for entry in split.entries
    ]
    assert b"bytes of b/1.jpg" == read_bytes(split.entries[2])
    assert {"iris": 1, "rose": 2} == split.counts == scan_split(manifest, "train")


def test_a_split_that_is_not_named_is_none(tmp_path):
    manifest = as_csv(tmp_path / "t.csv", ROWS)

    assert split_index(manifest, "val", ()) is None
    assert scan_split(manifest, "test") is None


def test_paths_count_from_root_or_are_absolute_below_it(tmp_path):
    root = images(tmp_path / "images")
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    as_csv(table, [("./a//1.jpg", "x"), (f"{root}/b/1.jpg", "y")])

    split = split_index(ImageManifest(train=str(table), root=str(root)), "train", ("y", "x"))

    assert split is not None
    assert [f"{root}/a/1.jpg", f"{root}/b/1.jpg"] == [entry.path for entry in split.entries]


def test_columns_can_have_other_names_and_stand_among_others(tmp_path):
    images(tmp_path)
    manifest = written(tmp_path / "t.csv", '\ufeffkind,size,file\nrose,3,a/1.jpg\n\n"a, b",4,b/1.jpg\n')
    manifest = ImageManifest(train=manifest.train, path_column="file", label_column="kind")

    assert {"a, b": 1, "rose": 1} == scan_split(manifest, "train")


def test_whole_numbers_and_dictionaries_in_parquet_are_labels_too(tmp_path):
    images(tmp_path)
    paths = pyarrow.array(["a/1.jpg", "b/1.jpg"]).dictionary_encode()
    manifest = as_parquet(tmp_path / "t.parquet", {"path": paths, "label": [7, 3]})

    assert {"3": 1, "7": 1} == scan_split(manifest, "train")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("a/9.jpg", "x"), "row 3: there is no image {root}/a/9.jpg; add it, or take the row out"),
        (("a/1.jpg", ""), "row 3: the label is empty"),
        (("a/1.jpg", "x "), "row 3: the label 'x ' begins or ends with a space"),
        (("a/1.jpg", "x" * 201), "is no class name; use at most 200"),
        (("a/1.jpg", "x\x1b[31m"), r"row 3: the label 'x\x1b[31m' is no class name"),
        (("", "x"), "row 3: '' is no path"),
        (("a/1\x00.jpg", "x"), r"row 3: 'a/1\x00.jpg' is no path"),
        (("../a/1.jpg", "x"), "row 3: ../a/1.jpg leads out of"),
        (("a/../../etc/1.jpg", "x"), "leads out of"),
        (("/etc/1.jpg", "x"), "row 3: /etc/1.jpg lies outside {root}"),
        (("{root}s/1.jpg", "x"), "lies outside {root}"),
        (("s3://bucket/1.jpg", "x"), "leads out of"),
        (("a/1.tif", "x"), "row 3: a/1.tif is no .jpg, .jpeg, .png, .bmp or .webp file"),
        (("c.jpg", "x"), "row 3: {root}/c.jpg is not a file"),
        (("a/1.jpg/x.jpg", "x"), "cannot be read"),
        (("out.jpg", "x"), "row 3: {root}/out.jpg is a link that leaves {root}"),
        (("out/x.jpg", "x"), "is a link that leaves {root}"),
        (("loop.jpg", "x"), "loop.jpg"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_the_remedy(row, told, tmp_path):
    root = images(tmp_path / "images")
    (root / "c.jpg").mkdir()
    (root / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "secret").mkdir()
    for link, target in (("out.jpg", "secret/x.jpg"), ("out", "secret")):
        (root / link).symlink_to(tmp_path / target)
    (tmp_path / "secret" / "x.jpg").write_bytes(b"secret")
    path, label = (text.replace("{root}", str(root)) for text in row)

    message = refusal(as_csv(root / "t.csv", [("b/1.jpg", "x"), (path, label)]))

    assert told.replace("{root}", str(root)) in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no column 'path'; it has none"),
        ("file,label\na,b\n", "has no column 'path'; it has file, label: set path_column and label_column"),
        ("path;label\na;b\n", "has no column 'path'; it has path;label: separate its columns by commas"),
        ("path\tlabel\na\tb\n", "separate its columns by commas"),
        ("path,path,label\na,b,c\n", "has more than one column 'path'"),
        ("path,label\n", "has no rows"),
        ("path,label\na/1.jpg\n", "row 2: has 1 fields, the header 2"),
        ("path,label\na/1.jpg,x,y\n", "row 2: has 3 fields, the header 2"),
        (b"path,label\na/1.jpg,x\nb/1.jpg,\xff\n", "is not UTF-8 after row 2"),
        (b"\xff\xfep\x00a\x00", "is not UTF-8"),
        ('path,label\n"a/1.jpg,x\n', "is no .csv after row 1"),
        ("path,label\r" + "a/1.jpg,x\r" * 3, "is no .csv"),
        ("path,label\n" + "x" * (1 << 21), "a line of more than 1,048,576 bytes"),
        ("path,label\n" + "a" * 200_000 + ",x\n", "is no .csv after row 1"),
    ],
)
def test_a_text_that_is_no_such_table_is_refused(text, told, tmp_path):
    images(tmp_path)

    assert told in refusal(written(tmp_path / "t.csv", text))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"path": ["a/1.jpg"]}, "has no column 'label'; it has path"),
        ({"path": ["a/1.jpg"], "label": [1.5]}, "column 'label' holds double; store text"),
        ({"path": ["a/1.jpg", "b/1.jpg"], "label": ["x", None]}, "row 2: label is empty"),
        ({"path": [None, "a/1.jpg"], "label": ["x", "x"]}, "row 1: path is empty"),
        ({"path": [None], "label": ["x"]}, "column 'path' holds null"),
        ({"path": ["a/1.jpg", "a/9.jpg"], "label": ["x", "x"]}, "row 2: there is no image"),
        ({"path": [["a/1.jpg"]], "label": ["x"]}, "column 'path' holds list"),
        ({"path": [b"a/1.jpg"], "label": ["x"]}, "column 'path' holds binary"),
    ],
)
def test_a_parquet_table_that_is_wrong_is_refused(columns, told, tmp_path):
    images(tmp_path)

    assert told in refusal(as_parquet(tmp_path / "t.parquet", columns))


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" * 100, b"\0" * 100])
def test_a_damaged_parquet_file_is_refused(damage, tmp_path):
    assert "is no readable .parquet file" in refusal(written(tmp_path / "t.parquet", damage))


def test_a_parquet_file_cut_anywhere_is_refused_without_a_fault(tmp_path):
    images(tmp_path)
    names = [f"a/{number % 2 + 1}.jpg" for number in range(100)]
    whole = Path(as_parquet(tmp_path / "whole.parquet", {"path": names, "label": names}).train).read_bytes()
    for cut in range(0, len(whole), 41):
        refusal(written(tmp_path / "t.parquet", whole[:cut]))
        refusal(written(tmp_path / "t.parquet", whole[:cut] + bytes(41) + whole[cut + 41 :]), at_the_door=False)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv.gz", "t"])
def test_a_file_of_another_kind_is_refused_by_its_name(name, tmp_path):
    assert "neither a .csv nor a .parquet" in refusal(written(tmp_path / name, "path,label\n"))


def test_a_pipe_is_refused_at_once_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")

    assert "is no file" in refusal(ImageManifest(train=str(tmp_path / "t.csv")))


def test_a_table_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    table = tmp_path / "t.csv"
    with table.open("wb") as file:
        file.truncate((1 << 30) + 1)

    assert "more than 1,073,741,824" in refusal(ImageManifest(train=str(table)))


def test_a_parquet_file_that_grows_too_large_when_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_module, "_MAX_BYTES", 100_000)
    table = as_parquet(tmp_path / "t.parquet", {"path": ["a" * 300_000], "label": ["x"]})
    assert Path(table.train).stat().st_size < 100_000

    assert "more than 100,000" in refusal(table)


def test_too_many_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_module, "_MAX_ROWS", 2)
    images(tmp_path)

    assert "has more than 2 rows" in refusal(as_csv(tmp_path / "t.csv", ROWS))


def test_an_image_in_two_rows_is_refused_by_the_worker(tmp_path):
    images(tmp_path)

    message = refusal(as_csv(tmp_path / "t.csv", [*ROWS, ("a//1.jpg", "rose")]), at_the_door=False)

    assert "row 5 names a//1.jpg once more" in message


def test_a_missing_image_after_the_first_rows_is_left_to_the_worker(tmp_path):
    images(tmp_path, ["1.jpg"])
    manifest = as_csv(tmp_path / "t.csv", [("1.jpg", "x")] * ROWS_AT_THE_DOOR + [("2.jpg", "y")])

    assert {"x": ROWS_AT_THE_DOOR, "y": 1} == scan_split(manifest, "train")


def test_a_path_that_climbs_is_refused_at_the_door_in_every_row(tmp_path):
    images(tmp_path, ["1.jpg"])
    manifest = as_csv(tmp_path / "t.csv", [("1.jpg", "x")] * ROWS_AT_THE_DOOR + [("../2.jpg", "y")])

    with pytest.raises(DatasetError, match=f"row {ROWS_AT_THE_DOOR + 2}: ../2.jpg leads out"):
        scan_split(manifest, "train")


def test_a_link_to_a_table_does_not_make_its_own_folder_readable(tmp_path):
    images(tmp_path / "data")
    as_csv(tmp_path / "data" / "t.csv", ROWS)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.csv").symlink_to(tmp_path / "data" / "t.csv")

    split = split_index(ImageManifest(train=str(tmp_path / "elsewhere" / "link.csv")), "train", ())

    assert split is not None
    assert f"{tmp_path}/data/a/1.jpg" == split.entries[0].path


def test_the_digest_changes_with_a_label_and_with_an_image(tmp_path):
    images(tmp_path)
    digests = set()
    for labels, data in (("xyx", b"1"), ("yyx", b"1"), ("yyx", b"22")):
        (tmp_path / "a" / "1.jpg").write_bytes(data)
        os.utime(tmp_path / "a" / "1.jpg", ns=(0, 0))
        manifest = as_csv(tmp_path / "t.csv", zip([path for path, _ in ROWS], labels, strict=True))
        split = split_index(manifest, "train", ())
        assert split is not None
        digests.add(split.digest)

    assert 3 == len(digests)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=5), st.binary(max_size=60))
def test_any_table_gives_rows_of_printable_classes_or_a_sentence(tmp_path_factory, rows, noise):
    folder = tmp_path_factory.mktemp("any")
    for manifest in (as_csv(folder / "rows.csv", rows), written(folder / "noise.csv", b"path,label\n" + noise)):
        counts: Mapping[str, int] | None = {}
        with suppress(DatasetError):
            counts = scan_split(manifest, "train")
        assert counts is not None
        assert all(name and name.isprintable() for name in counts)
