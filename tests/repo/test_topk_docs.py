"""The guide to podium.topk says what is true, and its code runs."""

import re
import runpy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from podium.topk import BASELINES, SORTERS

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "topk.md"
EXAMPLE = ROOT / "examples" / "topk_loss.py"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    found = spec_from_file_location("sorter_table", ROOT / "docs" / "sorter_table.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_registry(generator: ModuleType):
    text = GUIDE.read_text(encoding="utf-8")

    assert generator.document(text) == text, (
        "podium.topk's registry has changed; run: make docs, or .venv/bin/python docs/sorter_table.py"
    )


def test_a_guide_without_its_markers_is_refused(generator: ModuleType):
    with pytest.raises(ValueError, match=r"topk\.md has no part between"):
        generator.document("no table here")


@pytest.mark.parametrize("name", [*SORTERS, *BASELINES])
def test_every_family_has_a_section_of_its_own(name: str):
    headings = re.findall(r"^### (.+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)

    assert 1 == headings.count(name), (
        f"docs/topk.md needs one section '### {name}': formula, when to choose it, what to mind"
    )


def test_every_link_within_the_guide_leads_to_a_heading():
    text = GUIDE.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert [] == [target for target in re.findall(r"\]\(#([^)]+)\)", text) if target not in anchors]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_the_code_of_the_guide_runs_from_top_to_bottom():
    text = GUIDE.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    namespace: dict[str, Any] = {"__name__": "guide"}
    torch.manual_seed(0)

    assert len(blocks) > 5
    for block in blocks:
        # A failure names the line of the document.
        above = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(above + block[1], str(GUIDE), "exec"), namespace)


def test_the_readme_shows_the_library_example_that_is_tested():
    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- examples/topk_loss.py")[2]

    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8').strip()}\n```" in shown.partition("\n##")[0]


def test_the_library_example_runs(capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(EXAMPLE), run_name="__main__")

    assert re.fullmatch(r"\{1: [\d.]+, 5: [\d.]+\}\n", capsys.readouterr().out)
