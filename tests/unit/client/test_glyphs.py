import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podium.client.glyphs import FACES, GLYPHS, MARKER, PerClass, class_name, class_names, render_glyphs

pytest.importorskip("PIL")
np = pytest.importorskip("numpy")
pytest.importorskip("fontpkg_caveat")


from podium.client.glyphs.draw import draw_glyph, faces_of  # noqa: E402  # after the check for its packages

FEW = PerClass(train=3, val=2, test=2)


def digests(directory: Path) -> dict[str, str]:
    pictures = sorted(directory.rglob("*.jpg"))
    return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_glyphs(tmp_path_factory.mktemp("glyphs") / "set", classes=12, per_class=FEW)


def test_layout_is_an_image_folder(rendered: Path):
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        folders = sorted(path.name for path in (rendered / split).iterdir())
        assert folders == sorted(class_names(12))
        assert all(len(list((rendered / split / name).iterdir())) == count for name in folders)


def test_same_seed_gives_the_same_bytes_in_any_process(rendered: Path, tmp_path: Path):
    # A pool only starts for larger sets, so the second set has more pictures of the same classes.
    again = digests(render_glyphs(tmp_path / "again", classes=12, per_class=PerClass(30, 2, 2), workers=2))
    assert digests(rendered).items() <= again.items()


def test_other_seed_gives_other_pictures(rendered: Path, tmp_path: Path):
    other = digests(render_glyphs(tmp_path / "other", seed=1, classes=12, per_class=FEW))
    assert not set(other.values()) & set(digests(rendered).values())


def test_no_two_pictures_of_a_set_are_equal(rendered: Path):
    values = list(digests(rendered).values())
    assert len(values) == 12 * 7
    assert len(set(values)) == len(values)


def test_there_are_a_hundred_classes_distinct_without_case():
    names = class_names()
    assert len(names) >= 100
    assert len({name.casefold() for name in names}) == len(names)
    assert all(name.isascii() and name.replace("_", "").isalnum() for name in names)
    assert class_name("A") == "u0041_latin_capital_letter_a"


def test_every_class_has_faces_enough():
    assert min(len(faces_of(character)) for character in GLYPHS) >= len(FACES) // 2


def test_a_face_never_draws_a_character_it_lacks():
    assert not any(face.package == "fontpkg_caveat" for face in faces_of("Ξ"))


def test_a_face_never_draws_two_classes_alike():
    # Sofia Sans sets Cyrillic te in its cursive shape, which is a Latin m.
    assert not any(face.package == "fontpkg_sofia_sans" for face in faces_of("т"))
    assert any(face.package == "fontpkg_sofia_sans" for face in faces_of("m"))


@pytest.mark.parametrize("character", GLYPHS)
def test_no_picture_is_blank(character: str):
    picture = draw_glyph(character, (0, 0, ord(character), 0), 96)
    grey = np.asarray(picture.convert("L"), dtype=float)
    assert picture.size == (96, 96)
    assert picture.mode == "RGB"
    middle = grey[20:76, 20:76]
    assert np.percentile(middle, 98) - np.percentile(middle, 2) > 30


def test_finished_set_is_kept(rendered: Path):
    before = (rendered / MARKER).stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    render_glyphs(rendered, classes=12, per_class=FEW, on_progress=lambda *call: calls.append(call))
    assert calls == []
    assert (rendered / MARKER).stat().st_mtime_ns == before


def test_interrupted_rendering_leaves_nothing_and_is_done_anew(tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_glyphs(tmp_path / "set", classes=4, per_class=FEW, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    render_glyphs(tmp_path / "set", classes=4, per_class=FEW)
    assert len(digests(tmp_path / "set")) == 4 * 7


def test_set_of_another_request_is_replaced(tmp_path: Path):
    render_glyphs(tmp_path / "set", classes=4, per_class=FEW)
    render_glyphs(tmp_path / "set", classes=2, per_class=FEW)
    assert len(digests(tmp_path / "set")) == 2 * 7
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_torn_marker_is_not_taken_for_a_finished_set(tmp_path: Path):
    render_glyphs(tmp_path / "set", classes=2, per_class=FEW)
    (tmp_path / "set" / MARKER).write_text('{"recipe": 1')
    render_glyphs(tmp_path / "set", classes=2, per_class=FEW)
    assert json.loads((tmp_path / "set" / MARKER).read_text())["classes"] == 2


def test_foreign_files_are_never_replaced(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not a glyph set"):
        render_glyphs(tmp_path, classes=2, per_class=FEW)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_progress_counts_up_to_all_pictures(tmp_path: Path):
    calls: list[tuple[int, int]] = []
    render_glyphs(tmp_path / "set", classes=3, per_class=FEW, on_progress=lambda *call: calls.append(call))
    assert calls == [(7, 21), (14, 21), (21, 21)]


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"classes": 10_000}, {"seed": -1}, {"size": 8}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, Any]):
    with pytest.raises(ValueError, match="must be"):
        render_glyphs(tmp_path / "set", **wrong)


def test_a_class_needs_a_training_picture():
    with pytest.raises(ValueError, match="training picture"):
        PerClass(train=0)


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "podium\[demo\]"'):
        render_glyphs(tmp_path / "set")


def test_import_loads_neither_pillow_nor_numpy_nor_a_font():
    code = "import sys, podium.client.glyphs; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "podium.client.glyphs" in loaded
    assert not {"PIL", "numpy", "torch", "fontpkg_caveat"} & set(loaded)
