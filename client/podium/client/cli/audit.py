"""podium audit."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import click

from podium.client.cli._options import connect, console, json_option, print_json, server_option

if TYPE_CHECKING:
    from rich.table import Table

    from podium.jobs.audit import AuditEvent


@click.command()
@click.option("--project", default="", help="Only what is about this project. Default: everything, for admins of '*'.")
@click.option("--target", default="", help="Only what was done to this job, checkpoint, machine or token.")
@click.option(
    "-n", "--limit", default=50, show_default=True, type=click.IntRange(0), help="The newest so many; 0: all."
)
@json_option
@server_option
def audit(project: str, target: str, limit: int, as_json: bool, server: str | None) -> None:
    """Show who changed what, and who was refused, newest first. With --json one object a line."""
    from podium.client._wire import to_json

    out = console()
    with connect(server) as client:
        for event in islice(client.audit_events(project=project, target=target), limit or None):
            print_json(to_json(event), line=True) if as_json else out.print(_row(event))


def _row(event: AuditEvent) -> Table:
    """A table of one row, as events come one by one: what does not fit goes on below, to the right of the time."""
    from rich.table import Table

    from podium.client.cli._text import printable

    time = f"{event.time.astimezone():%Y-%m-%d %H:%M:%S}" if event.time else "-"
    about = " ".join(part for part in (event.target, f"of {event.project}" if event.project else "") if part)
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_row(
        time, printable(f"{event.status:<17} {event.method:<28} {about or '-'}  by {event.actor}  from {event.peer}")
    )
    return row
