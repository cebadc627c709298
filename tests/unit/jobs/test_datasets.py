import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from podium.jobs.datasets import DatasetError, index, read_bytes, scan_classes, scan_split, split_index
from podium.jobs.spec import ImageFolder, TorchvisionDataset


def _folder(root: Path, *names: str) -> str:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes of {name}".encode())
    return str(root)


def _tar(path: Path, *names: str) -> str:
    with tarfile.open(path, "w") as archive:
        for name in names:
            data = f"bytes of {name}".encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize("top", ["", "./", "flowers/", "./flowers/"])
def test_a_folder_and_a_tar_of_it_hold_the_same_classes_and_bytes(tmp_path, top):
    names = [f"{top}rose/2.JPG", f"{top}rose/1.png", f"{top}iris/1.webp", f"{top}rose/notes.txt", f"{top}.DS_Store"]
    splits = [index(_folder(tmp_path / "split", *names)), index(_tar(tmp_path / "split.tar", *names))]

    for split in splits:
        assert {"iris": 1, "rose": 2} == split.counts
        assert ["iris", "rose", "rose"] == [entry.class_name for entry in split.entries]
        assert ["1.webp", "1.png", "2.JPG"] == [entry.name.split("/")[-1] for entry in split.entries]
        assert f"bytes of {top}rose/1.png".encode() == read_bytes(split.entries[1])


def test_the_order_of_a_tar_does_not_matter(tmp_path):
    forward = index(_tar(tmp_path / "a.tar", "a/1.png", "a/2.png", "b/1.png"))
    backward = index(_tar(tmp_path / "b.tar", "b/1.png", "a/2.png", "a/1.png"))

    assert [entry.name for entry in forward.entries] == [entry.name for entry in backward.entries]


def test_the_digest_changes_with_the_images(tmp_path):
    path = _folder(tmp_path, "a/1.png")
    before = index(path).digest

    (tmp_path / "a" / "1.png").write_bytes(b"another image")

    assert before != index(path).digest


def test_names_that_climb_out_of_a_tar_are_no_images(tmp_path):
    path = _tar(tmp_path / "x.tar", "../../etc/evil.png", "../evil.png", "a/../../evil.png", "/a/1.png", "b/1.png")

    assert {"a": 1, "b": 1} == scan_classes(path)


def _tar_with(path: Path, kind: bytes, name: str) -> str:
    """A tar of an image, and of something without bytes of its own."""
    with tarfile.open(_tar(path, "a/1.png"), "a") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "a/1.png"
        archive.addfile(member)
    return str(path)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE], ids=["device", "pipe"])
def test_devices_in_a_tar_are_no_images(kind, tmp_path):
    assert {"a": 1} == scan_classes(_tar_with(tmp_path / "x.tar", kind, "a/2.png"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
@pytest.mark.parametrize("name", ["a/2.png", "b"])
def test_a_link_in_a_tar_is_refused_as_its_images_would_be_missing(kind, name, tmp_path):
    with pytest.raises(DatasetError, match=rf"keeps {name} as a link; make the tar file with tar --dereference"):
        scan_classes(_tar_with(tmp_path / "x.tar", kind, name))


def test_a_file_with_holes_in_a_tar_is_refused(tmp_path):
    member = tarfile.TarInfo("a/2.png")
    member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}
    with tarfile.open(_tar(tmp_path / "x.tar", "a/1.png"), "a") as archive:
        archive.addfile(member)

    with pytest.raises(DatasetError, match=r"keeps a/2\.png as a file with holes; make the tar file without --sparse"):
        scan_classes(str(tmp_path / "x.tar"))


def test_an_image_that_a_tar_has_twice_is_refused(tmp_path):
    path = _tar(tmp_path / "x.tar", "a/1.png", "b/1.png", "./a/1.png")

    with pytest.raises(DatasetError, match=r"has a/1\.png twice"):
        scan_classes(path)


@pytest.mark.parametrize(("link", "target", "two"), [("a/2.png", "1.png", "a/2.png"), ("b", "a", "b/1.png")])
def test_an_image_that_a_link_shows_a_second_time_is_refused(link, target, two, tmp_path):
    path = _folder(tmp_path, "a/1.png", "c/1.png")
    (tmp_path / link).symlink_to(target)

    with pytest.raises(DatasetError, match=rf"has one image twice, as a/1\.png and as {two}"):
        scan_classes(path)


def test_a_link_to_what_no_other_class_has_is_followed(tmp_path):
    path = _folder(tmp_path, "a/1.png", ".store/b/1.png", ".store/2.png")
    (tmp_path / "b").symlink_to(".store/b")
    (tmp_path / "a" / "2.png").symlink_to("../.store/2.png")

    assert {"a": 2, "b": 1} == scan_classes(path)


def test_a_link_out_of_a_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    path = _folder(tmp_path / "split", "a/1.png")
    (tmp_path / "split" / "a" / "2.png").symlink_to(tmp_path / "secret.png")

    with pytest.raises(DatasetError, match="leaves its dataset"):
        scan_classes(path)


def _with_size_field(field: bytes) -> bytes:
    header = bytearray(tarfile.TarInfo("a/1.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_with_size_field(b"\xff" * 11 + b"\x00"), id="negative size"),
        pytest.param(_with_size_field(b"77777777777\0"), id="8 GiB in 1 KiB"),
        pytest.param(_with_size_field(b"\x80" + b"\x7f" * 11), id="more than a file can have"),
        pytest.param(b"\0" * 10, id="too short"),
        pytest.param(b"hello, world" * 100, id="no tar"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_damaged_tar_is_refused_with_a_sentence(tmp_path, damage):
    path = tmp_path / "x.tar"
    path.write_bytes(damage)

    with pytest.raises(DatasetError, match=r"x\.tar (is damaged|is not a whole tar|holds no images)"):
        scan_classes(str(path))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [b"77777777777\0", b"\xff" * 11 + b"\x00"])
def test_an_extended_header_of_absurd_length_is_not_read(tmp_path, kind, size):
    header = bytearray(_with_size_field(size)[:512])
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(header) + bytes(4 << 20))

    with pytest.raises(DatasetError):
        scan_classes(str(path))


def test_a_truncated_tar_is_refused(tmp_path):
    path = Path(_tar(tmp_path / "x.tar", "a/1.png", "a/2.png"))
    path.write_bytes(path.read_bytes()[:1030])

    with pytest.raises(DatasetError, match="not a whole tar file"):
        scan_classes(str(path))


def test_a_compressed_tar_is_refused_by_name(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(gzip.compress(Path(_tar(tmp_path / "plain.tar", "a/1.png")).read_bytes()))

    with pytest.raises(DatasetError, match="compressed with gzip"):
        scan_classes(str(path))


def test_what_is_missing_is_told_from_what_is_empty(tmp_path):
    with pytest.raises(DatasetError) as missing:
        scan_classes(str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError) as empty:
        scan_classes(str(tmp_path))

    assert ("DATASET_NOT_FOUND", "DATASET_UNUSABLE") == (missing.value.reason, empty.value.reason)


def test_images_at_different_depths_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="mixes"):
        scan_classes(_tar(tmp_path / "x.tar", "a/1.png", "top/b/1.png"))


@pytest.mark.parametrize("name", ["a/2.TIF", "a/2.jfif", "a/2.gif"])
def test_images_of_a_kind_that_is_not_read_are_refused_and_not_left_out(name, tmp_path):
    names = ("a/1.png", "b/1.png", name)

    for path in (_folder(tmp_path / "split", *names), _tar(tmp_path / "split.tar", *names)):
        with pytest.raises(DatasetError, match=rf"has {name}, which is no \.jpg.* file; convert it, or remove it"):
            scan_classes(path)


@pytest.mark.parametrize("deep", ["top/a/more/2.png", "top/a/1/2/3.png"])
def test_images_below_class_folders_are_refused_and_not_left_out(deep, tmp_path):
    names = ("top/a/1.png", "top/b/1.png", deep)

    for path in (_folder(tmp_path / "split", *names), _tar(tmp_path / "split.tar", *names)):
        with pytest.raises(DatasetError, match="mixes"):
            scan_classes(path)


def test_a_folder_that_holds_train_and_test_is_refused_as_it_would_train_on_both(tmp_path):
    names = ("train/rose/1.png", "train/iris/1.png", "test/rose/1.png")

    for path in (_folder(tmp_path / "flowers", *names), _tar(tmp_path / "flowers.tar", *names)):
        with pytest.raises(DatasetError, match=r"class 'rose' twice, as test/rose and as train/rose; name the folder"):
            index(path)
    assert {"iris": 1, "rose": 1} == scan_classes(_folder(tmp_path / "kinds", "bulbs/iris/1.png", "shrubs/rose/1.png"))


def test_class_names_that_cannot_be_shown_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"rename class folder 'a\\x1b\[31m'"):
        scan_classes(_tar(tmp_path / "x.tar", "a\x1b[31m/1.png"))


def test_an_image_that_shrank_since_the_index_is_an_error(tmp_path):
    entry = index(_folder(tmp_path, "a/1.png")).entries[0]
    Path(entry.path).write_bytes(b"x")

    with pytest.raises(DatasetError, match="ends early"):
        read_bytes(entry)


def test_a_pipe_is_refused_at_once_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.tar")

    with pytest.raises(DatasetError, match="neither a folder nor a file"):
        scan_classes(str(tmp_path / "x.tar"))


def test_a_link_in_circles_is_refused_by_its_name(tmp_path):
    root = _folder(tmp_path, "a/1.png")
    (tmp_path / "a" / "z.png").symlink_to("z.png")

    with pytest.raises(DatasetError, match=r"z\.png"):
        scan_classes(root)


@pytest.mark.parametrize(("layout", "empty"), [("", "tulip"), ("flowers/", "flowers/tulip")])
@pytest.mark.parametrize("holding", ["nothing", "no image", "a hidden image"])
def test_an_empty_class_folder_of_train_is_refused_by_its_name(layout, empty, holding, tmp_path):
    images = [f"{layout}rose/1.png", f"{layout}iris/1.png"]
    folder = Path(_folder(tmp_path / "split", *images))
    (folder / empty).mkdir()
    if holding != "nothing":
        (folder / empty / ("notes.txt" if holding == "no image" else ".1.png")).write_bytes(b"x")
    with tarfile.open(tmp_path / "split.tar", "w") as archive:
        archive.add(folder, arcname=".")

    for path in (str(folder), str(tmp_path / "split.tar")):
        with pytest.raises(DatasetError, match="has the empty class folder 'tulip'; remove it, or add images"):
            split_index(ImageFolder(train=path), "train", ())
        assert {"iris": 1, "rose": 1, "tulip": 0} == scan_split(ImageFolder(train=path), "train")


def test_an_empty_class_folder_outside_train_does_no_harm(tmp_path):
    folder = _folder(tmp_path, "rose/1.png")
    (tmp_path / "iris").mkdir()

    split = split_index(ImageFolder(train=folder, val=folder), "val", ("iris", "rose"))

    assert split is not None
    assert {"rose": 1} == split.counts


@pytest.mark.parametrize(
    ("split", "classes", "told"),
    [
        ("train", ("rose",), "has the class 'iris', which is none of the job's classes"),
        ("test", ("rose", "tulip"), "has the class 'iris', which is none of the job's classes"),
        ("train", ("rose", "tulip", "iris"), "has no image of the class 'tulip'"),
    ],
)
def test_declared_classes_and_images_must_agree(split, classes, told, tmp_path):
    folder = _folder(tmp_path, "rose/1.png", "iris/1.png")

    with pytest.raises(DatasetError, match=told):
        split_index(ImageFolder(train=folder, test=folder), split, classes)


def test_the_test_split_may_lack_a_class(tmp_path):
    folder = _folder(tmp_path, "rose/1.png")

    assert split_index(ImageFolder(train=folder, test=folder), "test", ("iris", "rose")) is not None


def test_a_dataset_of_torchvision_has_no_index():
    with pytest.raises(TypeError, match="TorchvisionDataset"):
        split_index(TorchvisionDataset(name="CIFAR10", root="/data"), "train", ())
