"""podium pause, resume, update, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podium.client.cli._options import connect, job_argument, json_option, print_json, server_option

if TYPE_CHECKING:
    from podium.jobs.job import Job

PRIORITIES = ("low", "normal", "high", "urgent")

reason_option = click.option("--reason", default="", help="Why, for the record.")


@click.command()
@job_argument
@reason_option
@json_option
@server_option
def pause(job: str, reason: str, as_json: bool, server: str | None) -> None:
    """Have JOB save its work and give up its slots until it is resumed; a queued one leaves the queue at once."""
    with connect(server) as client:
        _tell(client.pause(job, reason), as_json)


@click.command()
@job_argument
@json_option
@server_option
def resume(job: str, as_json: bool, server: str | None) -> None:
    """Queue the paused JOB again, in its old place in line. It goes on from its newest checkpoint."""
    with connect(server) as client:
        _tell(client.resume(job), as_json)


@click.command()
@job_argument
@click.option("--priority", type=click.Choice(PRIORITIES, case_sensitive=False), help="The class it waits in.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Sets a label; NAME= removes it. May be repeated."
)
@json_option
@server_option
def update(job: str, priority: str | None, labels: tuple[str, ...], as_json: bool, server: str | None) -> None:
    """Change the priority or the labels of JOB, while it is queued. Labels that are not named stay."""
    from podium.jobs.spec import Priority

    if priority is None and not labels:
        raise click.UsageError("Nothing is to be changed; give --priority, --label or both.")
    pairs = dict(_pair(label) for label in labels)
    with connect(server) as client:
        _tell(client.update(job, priority=Priority[priority.upper()] if priority else None, labels=pairs), as_json)


@click.command()
@job_argument
@click.option("--force", is_flag=True, help="At once, without a last checkpoint.")
@reason_option
@json_option
@server_option
def cancel(job: str, force: bool, reason: str, as_json: bool, server: str | None) -> None:
    """Ask JOB to end. A running one writes a checkpoint first; `podium watch JOB` shows when it has ended."""
    with connect(server) as client:
        _tell(client.cancel(job, reason, force=force), as_json)


def _pair(label: str) -> tuple[str, str]:
    name, equals, value = label.partition("=")
    if not equals:
        raise click.BadParameter(f"{label!r} has no =; write NAME=VALUE, or NAME= to remove it", param_hint="--label")
    return name, value


def _tell(job: Job, as_json: bool) -> None:
    from podium.client._wire import to_json
    from podium.client.cli._text import printable, standing

    if as_json:
        print_json(to_json(job))
        return
    reason = job.queue.wait_reason if job.queue else standing(job.id, job.state.name, job.state_reason)
    click.echo(printable(f"{job.id} {job.state.name}{f': {reason}' if reason else ''}"))
