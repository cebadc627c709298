"""docs/listing.md says what can be asked, and nothing else."""

import re
from pathlib import Path

import pytest

from podium.jobs.errors import InvalidSpecError
from podium.server.services.filters import FIELDS, OPERATORS, Kind, compile_filter, table

GUIDE = (Path(__file__).resolve().parents[2] / "docs/listing.md").read_text()


def test_the_table_has_every_field_with_its_type_and_its_names():
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z ]+) \| (.+) \|$", GUIDE, re.MULTILINE)
    fields = table()

    assert [name for name in FIELDS if name in fields] == [name for name, _, _ in rows]
    for name, kind, told in rows:
        assert fields[name].kind.value == kind
        assert told.endswith(", ".join(fields[name].choices)), name
    assert "| `spec.labels.KEY` | text |" in GUIDE


def test_the_table_of_operators_is_what_each_type_takes():
    header, *rows = re.findall(r"^\| (operator .*|`[=<:].*) \|$", GUIDE, re.MULTILINE)
    kinds = [Kind(word.strip()) for word in header.split("|")[1:]]
    told: dict[Kind, set[str]] = {kind: set() for kind in kinds}
    for row in rows:
        operators, *cells = row.split("|")
        for kind, cell in zip(kinds, cells, strict=True):
            told[kind] |= set(re.findall("`([^`]+)`", operators)) if cell.strip() else set()

    assert {kind: set(OPERATORS[kind]) | ({":*"} if kind is Kind.TEXT else set()) for kind in Kind} == told


def test_every_filter_of_the_guide_can_be_read():
    examples = re.findall(r"--filter '([^']+)'", GUIDE) + re.findall(r"`((?:NOT )?[a-z_.]+ (?:=|!=|>) [^`…]+)`", GUIDE)

    assert len(examples) > 6
    for example in examples:
        assert compile_filter(example) is not None


def test_the_error_in_the_guide_is_what_is_said():
    with pytest.raises(InvalidSpecError) as caught:
        compile_filter("state == RUNNING")

    (violation,) = caught.value.violations
    assert f"> filter: {violation.description}\n" in GUIDE
