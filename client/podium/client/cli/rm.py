"""podium rm."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from podium.client.cli._exit import SUCCEEDED, code_of, say, sentences
from podium.client.cli._options import connect, json_option, print_json, project_option, server_option

if TYPE_CHECKING:
    from podium.client._client import Client


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--filter", "only", default="", metavar="FILTER", help="Every ended job of which it is true.")
@project_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@server_option
def rm(jobs: tuple[str, ...], only: str, project: str, yes: bool, as_json: bool, server: str | None) -> int:
    """Delete jobs that have ended, with their checkpoints, metrics and logs. There is no way back.

    A job is not deleted while another one, which has not ended, starts from one of its checkpoints. FILTER is that of
    `podium ls`, such as 'labels.team = vision AND create_time < "2026-01-01T00:00:00Z"'.
    """
    if bool(jobs) is bool(only):
        raise click.UsageError("Name the jobs to delete, or say --filter.")
    with connect(server, project=project) as client:
        chosen = list(jobs) or _ended(client, only)
        if chosen and not yes:
            _ask(len(chosen))
        deleted, code = _delete(client, chosen)
    print_json({"deleted": deleted}) if as_json else click.echo(f"Deleted {_count(len(deleted))}.")
    return code


def _ended(client: Client, only: str) -> list[str]:
    from podium.jobs.states import State

    return [job.id for job in client.list([state for state in State if state.terminal], filter=only)]


def _ask(number: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("This cannot be undone, and nobody can be asked here; say --yes.")
    click.confirm(f"Delete {_count(number)}, checkpoints, metrics and logs included?", abort=True, err=True)


def _delete(client: Client, jobs: list[str]) -> tuple[list[str], int]:
    """Those that were deleted, and the exit code: that of the first one that was not."""
    from podium.jobs.errors import PodiumError

    deleted, code = [], SUCCEEDED
    for job_id in jobs:
        try:
            client.delete(job_id)
        except PodiumError as error:
            for sentence in sentences(error):
                say(sentence)
            code = code or code_of(error)
        else:
            deleted.append(job_id)
    return deleted, code


def _count(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"
