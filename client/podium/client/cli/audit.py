"""podium audit."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import click

from podium.client.cli._options import connect, json_option, print_json, server_option

if TYPE_CHECKING:
    from podium.jobs.audit import AuditEvent


@click.command()
@click.option("--project", default="", help="Only what is about this project. Default: everything, for admins of '*'.")
@click.option("--target", default="", help="Only what was done to this job, checkpoint, machine or token.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(0), help="The newest so many; 0: all.")
@json_option
@server_option
def audit(project: str, target: str, limit: int, as_json: bool, server: str | None) -> None:
    """Show who changed what, and who was refused, newest first. With --json one object a line."""
    from podium.client._wire import to_json
    from podium.client.cli._text import printable

    with connect(server) as client:
        for event in islice(client.audit_events(project=project, target=target), limit or None):
            if as_json:
                print_json(to_json(event), line=True)
            else:
                click.echo(printable(_line(event)))


def _line(event: AuditEvent) -> str:
    time = f"{event.time:%Y-%m-%d %H:%M:%S}" if event.time else "-"
    about = " ".join(part for part in (event.target, f"of {event.project}" if event.project else "") if part)
    return f"{time}  {event.status:<17} {event.method:<28} {about or '-'}  by {event.actor}  from {event.peer}"
