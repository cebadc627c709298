"""podium logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from podium.client.cli._exit import INTERRUPTED, SUCCEEDED, say
from podium.client.cli._options import connect, job_argument, json_option, print_json, server_option

if TYPE_CHECKING:
    from podium.client._logs import Log
    from podium.jobs.events import LogLine

_LEVELS = ("debug", "info", "warning", "error")


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until the job ends.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only this attempt's.")
@click.option("--rank", type=click.IntRange(0), metavar="R", help="Only this rank's; 0 also speaks for all.")
@click.option("--level", type=click.Choice(_LEVELS, case_sensitive=False), help="Only of this level or worse.")
@click.option("--offset", type=click.IntRange(0), metavar="N", help="Leave the first N lines of the job's log out.")
@json_option
@server_option
def logs(
    job: str,
    follow: bool,
    attempt: int | None,
    rank: int | None,
    level: str | None,
    offset: int | None,
    as_json: bool,
    server: str | None,
) -> int:
    """Print JOB's log, of all its attempts and ranks, in the order written.

    Ctrl-C leaves the job running, and tells the offset to go on with. --json prints one line of the log a line.
    """
    from podium.client.cli._interrupts import Interrupts
    from podium.jobs.events import Level

    least = Level[level.upper()] if level else None
    with connect(server) as client:
        log = client.job(job).logs(follow=follow, attempt=attempt or 0, rank=rank, min_level=least, offset=offset)
        printed = 0
        try:
            with Interrupts() as interrupts:
                for lines in _batches(log):
                    with interrupts.held():
                        _print(lines, as_json)
                    printed += len(lines)
        except KeyboardInterrupt:
            click.echo(f"\n`podium logs {job} --offset {log.offset or 0}` goes on here.", err=True)
            return INTERRUPTED
    if not printed:
        click.echo("No such lines." if attempt or rank is not None or least or offset else "No lines yet.", err=True)
    return SUCCEEDED


def _batches(log: Log) -> Iterator[tuple[LogLine, ...]]:
    """The lines, from the oldest that is kept as often as those asked for no longer are."""
    from podium.jobs.errors import OutOfRangeError

    while True:
        try:
            yield from log.batches()
        except OutOfRangeError as error:
            oldest = int(error.metadata.get("oldest_offset", 0))
            if log.offset is None or oldest <= log.offset:
                raise
            say(f"lines {log.offset} to {oldest - 1} are no longer kept; the log begins with {oldest}")
            log.offset = oldest
        else:
            return


def _print(lines: tuple[LogLine, ...], as_json: bool) -> None:
    from podium.client._wire import to_json
    from podium.client.cli._text import printable

    for line in lines:
        if as_json:
            print_json(to_json(line), line=True)
        else:
            click.echo(printable(_told(line)))


def _told(line: LogLine) -> str:
    from podium.jobs.events import Level

    stamp = line.time.astimezone().strftime("%H:%M:%S ") if line.time else ""
    level = f"{line.level.name} " if line.level in (Level.WARNING, Level.ERROR) else ""
    return f"{stamp}{level}{f'rank {line.rank}: ' if line.rank else ''}{line.text}"
