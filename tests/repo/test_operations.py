"""The runbook says what is true."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from podium.client.cli import cli
from podium.jobs.settings import from_environment
from podium.server.dispatcher import sharing_from_environment

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
#: Written by workers for their own processes; nobody sets them.
INTERNAL = {"PODIUM_AGENT_FOLDER", "PODIUM_ATTEMPT_FOLDER", "PODIUM_SLOT_DEVICES"}
#: Read by the pilot and by docker-compose.yml themselves.
OF_SCRIPTS = {"PODIUM_DATA", "PODIUM_ENV", "PODIUM_METRICS_PORT", "PODIUM_PORT"}


def table() -> dict[str, str]:
    """Variable -> default, as the table of settings tells."""
    return dict(re.findall(r"^\| `(PODIUM_[A-Z_]+)` \| [a-z, ]+ \| ([^|]+) \|", RUNBOOK, re.MULTILINE))


def test_the_table_of_settings_has_every_variable_that_a_program_reads_and_no_other():
    sources = [path for room in ("jobs", "server", "worker", "client") for path in (ROOT / room).rglob("*.py")]
    read = {name for path in sources for name in re.findall(r'"(PODIUM_[A-Z_]+)"', path.read_text(encoding="utf-8"))}

    assert read - INTERNAL == table().keys()


@pytest.mark.parametrize("program", ["server", "worker"])
def test_the_help_of_a_program_names_its_settings_as_the_table_does(program):
    of_it = {
        name
        for name, whose in re.findall(r"^\| `(PODIUM_[A-Z_]+)` \| ([a-z, ]+) \|", RUNBOOK, re.MULTILINE)
        if program in whose
    }
    told = subprocess.run(
        [sys.executable, "-m", f"podium.{program}", "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    named = set(re.findall(r"PODIUM_[A-Z_]+\*?", told))
    families = tuple(name.removesuffix("*") for name in named if name.endswith("*"))

    missing = {name for name in of_it - named if not name.startswith(families)}
    assert set() == missing - {"PODIUM_METRICS_LISTEN"}  # it stands at --metrics-listen
    assert named - of_it == {name for name in named if name.endswith("*")}


def test_whatever_is_deployed_sets_only_variables_of_the_table():
    files = [ROOT / "docker-compose.yml", *(path for path in (ROOT / "deploy").rglob("*") if path.is_file())]
    named = {name for path in files for name in re.findall(r"PODIUM_[A-Z_]+", path.read_text(encoding="utf-8"))}

    assert "PODIUM_REDIS_URL" in named
    assert set() == named - OF_SCRIPTS - table().keys()


def test_the_table_tells_the_defaults():
    settings = from_environment({"PODIUM_ARTIFACTS": "/artifacts"})
    told = table()

    assert {
        "PODIUM_REDIS_URL": f"`{settings.redis_url}`",
        "PODIUM_LEASE_ATTEMPT": f"`{settings.leases.attempt:g}`",
        "PODIUM_LEASE_STARTING": f"`{settings.leases.starting:g}`",
        "PODIUM_LEASE_NODE": f"`{settings.leases.node:g}`",
        "PODIUM_GRACE": f"`{settings.leases.grace:g}`",
        "PODIUM_SHARE_HALF_LIFE": f"`{sharing_from_environment({}).half_life:g}`",
    }.items() <= told.items()


def test_every_command_of_the_runbook_is_one():
    named = set(re.findall(r"`podium ([a-z]+)", RUNBOOK))

    assert {"ls", "show", "nodes", "drain"} <= named
    assert set() == named - set(cli.list_commands(click.Context(cli)))
