"""docs/security.md says what each rpc asks for as it is."""

import re
from pathlib import Path

from podium.server.access import RULES, Of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
WHERE = {
    Of.JOB: "the job's project",
    Of.JOBS: "the job's project",
    Of.CHECKPOINT: "the job's project",
    Of.PROJECT: "the project asked for",
    Of.PROJECT_OR_ALL: "the project asked for",
    Of.ALL: "all projects",
}


def test_the_table_of_roles_is_the_one_that_the_server_goes_by():
    rows = re.findall(r"^\| ([A-Za-z/, ]+) \| (viewer|submitter|admin) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    told = {method: (role, where) for methods, role, where in rows for method in methods.split(", ")}

    assert RULES.keys() == told.keys()
    for method, rule in RULES.items():
        # Of those of no project the service itself tells tokens apart.
        service_itself = "the token's project" if rule.role.name == "ADMIN" else "any project"
        assert (rule.role.name.lower(), WHERE.get(rule.of, service_itself)) == told[method], method
