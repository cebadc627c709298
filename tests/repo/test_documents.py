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
from podium.jobs.retries import LIMITS
from podium.jobs.spec import Dataset
from podium.jobs.states import MOVES, State

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


def rows(path: Path, head: str) -> dict[str, list[str]]:
    """The cells of the table whose first column is called `head`, by each of the names in the first cell of a row."""
    lines = path.read_text().partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: cell[1:] for cell in cells for name in cell[0].split(", ")}


def test_the_moves_that_are_told_are_the_legal_ones():
    told = {
        state: set() if moves == "nothing" else set(moves.split(", "))
        for state, (_, moves, _) in rows(ROOT / "docs/job-lifecycle.md", "state").items()
    }

    assert {state.name: {to.name for to in moves} for state, moves in MOVES.items()} == told


def test_how_often_each_cause_is_tried_again_is_told_as_it_is():
    told = {cause: limit for cause, (limit, _) in rows(ROOT / "docs/job-lifecycle.md", "cause").items()}

    limits = {cause.name: str(LIMITS.get(cause, 1)) for cause in Cause}
    assert {**limits, "PREEMPTED": "any number"} == told


def test_every_reason_of_an_error_is_in_the_table():
    table = (ROOT / "docs/errors.md").read_text()
    sources = [path for room in ("jobs", "server", "client") for path in (ROOT / room).rglob("*.py")]
    # What is wrong with images is said as a violation of a spec or as the error of a job, never as a status of its own.
    sources = [path for path in sources if "datasets" not in path.parts]
    reasons = {reason for path in sources for reason in re.findall(r'reason="([A-Z_]+)"', path.read_text())}

    assert len(reasons) > 5
    assert [] == sorted(reason for reason in reasons if reason not in table)
