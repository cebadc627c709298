"""The documents say what is true."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from podium.client import load_spec
from podium.jobs import errors as tree
from podium.jobs.catalogue import datasets
from podium.jobs.job import Cause
from podium.jobs.spec import Dataset
from podium.jobs.states import State

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_readme_shows_the_example_that_is_tested():
    assert (ROOT / "examples/submit.py").read_text().strip() == blocks(ROOT / "README.md", "python")[0].strip()


def test_every_job_in_the_readme_and_in_examples_can_be_read():
    texts = blocks(ROOT / "README.md", "yaml") + [path.read_text() for path in (ROOT / "examples").rglob("*.yaml")]

    assert len(texts) > 3
    for text in texts:
        assert yaml.safe_load(text)["backbone"] == load_spec(text).backbone


def test_every_kind_of_dataset_in_the_guide_can_be_read():
    job = "backbone: resnet50\nfull: {}\nsubset: {}\n"
    kinds = [type(load_spec(job + text).dataset) for text in blocks(ROOT / "docs/data.md", "yaml")]

    assert set(get_args(Dataset)) == set(kinds)


def test_the_guide_lists_the_datasets_of_torchvision():
    rows = re.findall(
        r"^\| ([A-Za-z0-9, ]+) \| ([0-9, ]+) [a-z]+ \|", (ROOT / "docs/data.md").read_text(), re.MULTILINE
    )
    told = {}
    for names, counts in rows:
        numbers = counts.split(", ")
        for place, name in enumerate(names.split(", ")):
            told[name] = int(numbers[min(place, len(numbers) - 1)])

    assert {card.name: len(card.classes) for card in datasets()} == told


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_leads_nowhere(document):
    targets = re.findall(r"\]\(([^)#:]+)\)", document.read_text())

    assert [] == [target for target in targets if not (document.parent / target).exists()]


def test_every_error_cause_and_state_is_explained():
    errors = (ROOT / "docs/errors.md").read_text()
    lifecycle = (ROOT / "docs/job-lifecycle.md").read_text()

    in_the_tree = {
        cls.__name__
        for cls in vars(tree).values()
        if isinstance(cls, type) and issubclass(cls, tree.PodiumError) and cls.__bases__ == (tree.PodiumError,)
    }
    assert len(in_the_tree) > 10
    assert [] == [name for name in in_the_tree if f"`{name}`" not in errors]
    explained = {name for heading in re.findall(r"^### (.*)$", errors, re.MULTILINE) for name in heading.split(", ")}
    assert {cause.name for cause in Cause} == explained
    assert [] == [state.name for state in State if state.name not in lifecycle]
